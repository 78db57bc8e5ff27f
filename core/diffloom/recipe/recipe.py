"""Recipe: a validated description of a system, its training and its evaluation. Nothing in it is built yet.

A recipe is data: it names registered parts and gives their parameters, never code. Every problem is reported at once,
each on a line of its own with file, line and column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from diffloom.errors import RecipeError
from diffloom.kinds import registry as installed
from diffloom.recipe.migrate import migrate
from diffloom.recipe.settings import HOOKS, EvalSettings, Precision, SampleSettings, Settings, TrainSettings
from diffloom.recipe.source import KeyPath, Source, laid_over, override, read, setting
from diffloom_registry import Config, ConfigError, Problem, Registry
from diffloom_registry.errors import nearest
from diffloom_registry.fields import Fields

if TYPE_CHECKING:
    from diffloom.recipe.check import Report
    from diffloom.system import System

ROLES = {
    "data": "dataset",
    "schedule": "schedule",
    "autoencoder": "autoencoder",
    "denoiser": "denoiser",
    "sampler": "sampler",
    "task": "task",
}
"""Keys of a recipe that hold one component, and the kind of it."""

LOCK = "lock"


class Header(Settings):
    """The keys of a recipe that are not components."""

    diffloom: Annotated[Literal[1], Field(description="Version of the recipe format.")]
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Names the run's folder; letters, digits, . _ -"),
    ]
    description: Annotated[str, Field(description="What the recipe is, in a sentence.")] = ""
    seed: Annotated[int, Field(ge=0, description="Seeds everything.")] = 0
    precision: Annotated[
        Precision, Field(description="Number type of the network's arithmetic; weights and states stay float32.")
    ] = "float32"
    device: Annotated[Literal["auto", "cpu"], Field(description="Where to compute.")] = "auto"
    train: Annotated[TrainSettings, Field(description="How the system is trained.")] = TrainSettings()
    sample: Annotated[SampleSettings, Field(description="What a run draws when it samples.")] = SampleSettings()
    eval: Annotated[EvalSettings, Field(description="How a run is judged.")] = EvalSettings()
    hooks: Annotated[tuple[str, ...], Field(description="Behaviours that act on a run, by name; [] for none.")] = HOOKS


@dataclass(frozen=True)
class Recipe:
    """A validated recipe.

    Attributes:
        source: What was read, and where each value stood.
        header: Everything that is not a component.
        parts: Role → configuration; `conditioners` are apart.
        conditioners: Name → configuration, in the recipe's order.
        metrics: The metrics of `eval`.
        samplers: The further samplers of `eval`, by name.
        held_out: The held-out data, where the recipe names them.
        registry: Where components come from.
    """

    source: Source
    header: Header
    parts: Mapping[str, Config]
    conditioners: Mapping[str, Config] = field(default_factory=dict)
    metrics: Sequence[Config] = ()
    samplers: Mapping[str, Config] = field(default_factory=dict)
    held_out: Config | None = None
    registry: Registry = installed

    def part(self, role: str) -> Config | None:
        """Return the configuration of a role, or `None` where the recipe names none."""
        return self.parts.get(role)

    def check(self) -> "Report":
        """Build the system without memory and try it, as `diffloom.recipe.check` says; RecipeError with all."""
        from diffloom.recipe.check import check

        return check(self)

    def build(self, *, device: str | None = None) -> "System":
        """Return the system with its weights; RecipeError where parts do not fit together."""
        from diffloom.recipe.build import build

        return build(self, device=device).system

    def resolved(self) -> dict[str, Any]:
        """Return the recipe with every default written out: plain data that loads to an equal recipe."""
        plain = self.header.model_dump(mode="json")
        evaluation = plain.pop("eval")
        evaluation["metrics"] = [config.resolved() for config in self.metrics]
        evaluation["samplers"] = {name: config.resolved() for name, config in self.samplers.items()}
        if self.conditioners:
            plain["conditioners"] = {name: config.resolved() for name, config in self.conditioners.items()}
        return plain | {role: config.resolved() for role, config in self.parts.items()} | {"eval": evaluation}

    def configs(self) -> dict[KeyPath, Config]:
        """Return every component of the recipe, by where it stands."""
        found: dict[KeyPath, Config] = {(role,): config for role, config in self.parts.items()}
        found |= {("conditioners", name): config for name, config in self.conditioners.items()}
        found |= {("eval", "metrics", i): config for i, config in enumerate(self.metrics)}
        return found | {("eval", "samplers", name): config for name, config in self.samplers.items()}

    def error(self, problems: Sequence[Problem]) -> RecipeError:
        """Return the error that says all `problems`, each with its place in the recipe's files."""
        return located(self.source, problems)


def load(
    *paths: str | Path,
    overrides: Mapping[str, object] | None = None,
    settings: Sequence[str] = (),
    registry: Registry = installed,
) -> Recipe:
    """Return the recipe of a file, or of several laid over each other.

    Args:
        paths: Files, or the name of a recipe that comes with diffloom.
        overrides: Dotted path → value, laid over the files.
        settings: `path.to.key=value` texts, as the command line takes them.
        registry: Where components come from.

    Raises:
        RecipeError: Where a file cannot be read, or anything in it is wrong; all problems at once.
    """
    return validate(gather(*paths, overrides=overrides, settings=settings), registry)


def gather(*paths: str | Path, overrides: Mapping[str, object] | None = None, settings: Sequence[str] = ()) -> Source:
    """Return what files, settings and overrides say together, like `load`, without judging it; old keys made new.

    Raises:
        RecipeError: Where a file or a setting cannot be read.
    """
    source = Source()
    for path in paths:
        source.merge(read(find(path)))
    for text in settings:
        source.merge(setting(text))
    for path, value in (overrides or {}).items():
        source.merge(override(path.split("."), value, f"override {path}"))
    return migrate(source)


def shipped() -> dict[str, Path]:
    """Return the recipes that come with diffloom, by name."""
    beside = Path(str(resources.files("diffloom"))) / "recipes"
    folder = beside if beside.is_dir() else Path(__file__).parents[3] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(path: str | Path) -> Path:
    """Return the file of a recipe given as a path or as the name of a shipped one."""
    file = Path(path)
    if file.is_file():
        return file
    known = shipped()
    if file.suffix in ("", ".yaml") and file.stem in known and len(file.parts) <= 2:
        return known[file.stem]
    near = nearest(file.stem, known)
    raise RecipeError(
        f"there is no recipe {path}",
        expected="a file, or one of " + ", ".join(known) if known else "a file",
        remedy=f"did you mean {near[0]}?" if near else None,
    )


def validate(source: Source, registry: Registry = installed) -> Recipe:
    """Return the recipe that a source describes; RecipeError with every problem in it."""
    data = {key: value for key, value in source.data.items() if key != LOCK}
    problems: list[Problem] = []
    model, found = Fields(Header).check(
        {key: value for key, value in data.items() if key in Header.model_fields}, (), strict=True
    )
    problems += found
    known = [*Header.model_fields, *ROLES, "conditioners", "extends"]
    problems += [_unknown(key, known) for key in data if key not in known]

    def component(kind: str, value: object, path: KeyPath) -> Config | None:
        try:
            return registry.validate(kind, value, path=path)  # type: ignore[arg-type]
        except ConfigError as error:
            problems.extend(error.problems)
            return None

    filled = {"autoencoder": {"type": "identity"}, **data}
    parts = {role: component(kind, filled[role], (role,)) for role, kind in ROLES.items() if role in filled}
    problems += [
        Problem((role,), "missing", f"a {ROLES[role]}, as {role}: {{type: …}}")
        for role in ("data", "task")
        if role not in data
    ]
    conditioners = {
        name: component("conditioner", value, ("conditioners", name))
        for name, value in _mapping(data, "conditioners", problems).items()
    }
    metrics, samplers, held_out = [], {}, None
    if isinstance(model, Header):
        metrics = [component("metric", m, ("eval", "metrics", i)) for i, m in enumerate(model.eval.metrics)]
        samplers = {n: component("sampler", s, ("eval", "samplers", n)) for n, s in model.eval.samplers.items()}
        if model.eval.held_out is not None and isinstance(data.get("data"), Mapping):
            held_out = component("dataset", laid_over(data["data"], model.eval.held_out), ("eval", "held_out"))
    if problems or not isinstance(model, Header):
        raise located(source, problems)
    return Recipe(
        source=source,
        header=model,
        parts=_present(parts),
        conditioners=_present(conditioners),
        metrics=[metric for metric in metrics if metric is not None],
        samplers=_present(samplers),
        held_out=held_out,
        registry=registry,
    )


def located(source: Source, problems: Sequence[Problem]) -> RecipeError:
    """Return one error whose lines are the problems, each headed by its file, line and column."""
    lines = []
    for problem in problems:
        mark = source.mark(problem.path)
        lines.append(f"{mark}: {problem.text()}" if mark else problem.text())
    error = RecipeError.of(dict.fromkeys(lines))
    error.problems = tuple(problems)
    return error


def _unknown(key: str, known: Sequence[str]) -> Problem:
    near = nearest(key, known)
    hint = f"did you mean '{near[0]}'?" if near else "leave it out"
    return Problem((key,), "unknown key", expected="one of " + ", ".join(known), remedy=hint)


def _mapping(data: Mapping[str, Any], key: str, problems: list[Problem]) -> Mapping[str, Any]:
    value = data.get(key) or {}
    if isinstance(value, Mapping):
        return value
    problems.append(Problem((key,), "wrong type", "a mapping of names to components", str(value)))
    return {}


def _present(configs: Mapping[str, Config | None]) -> dict[str, Config]:
    return {name: config for name, config in configs.items() if config is not None}
