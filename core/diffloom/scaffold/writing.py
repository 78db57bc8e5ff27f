"""From a name and some kinds to the files of a package."""

import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from string import Template

from diffloom.scaffold.recipes import recipe
from diffloom_registry.errors import DiffloomError, did_you_mean, listed, nearest

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Part:
    """The component that is written for one kind.

    Attributes:
        kind: Its kind, and the name of its module.
        cls: Its class.
        ending: It is published as `plugin-ending`.
        summary: What it is, in a few words.
    """

    kind: str
    cls: str
    ending: str
    summary: str


PARTS: Mapping[str, Part] = {
    part.kind: part
    for part in (
        Part("schedule", "Straight", "straight", "the share of signal falls in a straight line"),
        Part("denoiser", "ConvNet", "convnet", "residual convolutions at full size"),
        Part("autoencoder", "Haar", "haar", "the wavelet transform of 2×2 blocks, which loses nothing"),
        Part("conditioner", "Brightness", "brightness", "asks for an image of a given mean brightness"),
        Part("sampler", "Fresh", "fresh", "first-order steps with any amount of fresh noise"),
        Part("task", "Robust", "robust", "generation, trained by the pseudo-Huber loss"),
        Part("dataset", "Shapes", "shapes", "discs and squares that are drawn"),
        Part("transform", "Shift", "shift", "moves an image by a few pixels"),
        Part("metric", "Spread", "spread", "how much images differ from each other"),
    )
}
"""Kind → what is written for it."""


def names(plugin: str, kinds: Iterable[str]) -> dict[str, str]:
    """Return the name under which each kind's component is published."""
    return {kind: f"{normalised(plugin)}-{PARTS[kind].ending}" for kind in kinds}


def normalised(plugin: str) -> str:
    """Return a plugin's name as distributions are compared: small letters and hyphens."""
    return re.sub(r"[-_.]+", "-", plugin).lower()


def write(plugin: str, kinds: Sequence[str], folder: Path) -> Path:
    """Write a plugin package into a new folder of its name.

    Args:
        plugin: Name of the distribution; the package is called alike, with `_` for `-`.
        kinds: For which kinds it gets a component.
        folder: Where the new folder is made.

    Returns:
        The new folder.

    Raises:
        DiffloomError: If the name or a kind will not do, or something is there already; nothing is written then.
    """
    wanted = _known(kinds)
    package = _package(plugin)
    target = folder / normalised(plugin)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DiffloomError(
            "there is something already",
            where=str(target),
            remedy="choose another name or folder, or move it away; nothing was changed",
        )
    folder.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=folder))
    try:
        for path, text in files(plugin, package, wanted).items():
            file = draft / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        draft.chmod(0o755)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def files(plugin: str, package: str, kinds: Sequence[str]) -> dict[str, str]:
    """Return the text of every file of a package, by its path."""
    published = names(plugin, kinds)
    values = {
        "plugin": normalised(plugin),
        "package": package,
        "diffloom": ".".join(version("diffloom").split(".")[:2]),
        "entry_points": "\n\n".join(
            f'[project.entry-points."diffloom.{kind}"]\n{name} = "{package}.{kind}:{PARTS[kind].cls}"'
            for kind, name in published.items()
        ),
        "components": "\n".join(f"| `{kind}` | `{name}` | {PARTS[kind].summary} |" for kind, name in published.items()),
        "kinds": listed(list(kinds)),
        "tests": "".join(_test(kind, name) for kind, name in published.items()),
        "first": next(f"{kind}/{name}" for kind, name in published.items()),
    }
    found = {
        path: Template(_read("files", f"{source}.txt")).substitute(values)
        for path, source in {
            "pyproject.toml": "pyproject",
            "README.md": "readme",
            ".gitignore": "gitignore",
            ".github/workflows/test.yml": "workflow",
            f"src/{package}/__init__.py": "init",
            "tests/test_components.py": "tests",
        }.items()
    }
    found["recipe.yaml"] = recipe(normalised(plugin), published)
    found[f"src/{package}/py.typed"] = ""
    found |= {f"src/{package}/{kind}.py": _read("parts", f"{kind}.py") for kind in kinds}
    if "metric" in kinds:
        found["tests/test_metric.py"] = Template(_read("files", "test_metric.txt")).substitute(values)
    return found


def _test(kind: str, name: str) -> str:
    function = re.sub(r"\W", "_", name)
    return f'\ndef test_{function}() -> None:\n    assert failures("{kind}", "{name}") == []\n\n'


def _read(folder: str, name: str) -> str:
    return resources.files("diffloom.scaffold").joinpath(folder, name).read_text(encoding="utf-8")


def _known(kinds: Sequence[str]) -> list[str]:
    """Return the kinds, each once, in the order of `PARTS`; DiffloomError where there is no such kind."""
    for kind in kinds:
        if kind not in PARTS:
            near = nearest(kind, PARTS)
            raise DiffloomError(
                f"there is no kind of component named {kind!r}",
                where="--kind",
                expected=f"one of {listed(list(PARTS))}",
                remedy=did_you_mean(near) if near else None,
            )
    return [kind for kind in PARTS if kind in kinds]


def _package(plugin: str) -> str:
    """Return the name of the Python package; DiffloomError where it cannot be one, or belongs to another."""
    if not _NAME.fullmatch(plugin):
        raise DiffloomError(
            "this cannot be the name of a package",
            expected="letters and digits, words joined by '-', '_' or '.', a letter first",
            got=repr(plugin),
        )
    package = normalised(plugin).replace("-", "_")
    remedy = "choose another name"
    if keyword.iskeyword(package) or package in sys.stdlib_module_names:
        raise DiffloomError(f"Python itself has the name {package!r}", got=repr(plugin), remedy=remedy)
    if package in ("test", "tests") or find_spec(package) is not None:
        raise DiffloomError(f"there is a package {package!r} already", got=repr(plugin), remedy=remedy)
    return package
