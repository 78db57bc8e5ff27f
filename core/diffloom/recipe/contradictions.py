"""Contradictions: parts that are each right and together wrong. One small function per law, with reason and remedy.

All are judged on parts, never on names: by what a schedule's table says, what a sampler's grid needs, which ports are
filled, whether what is diffused has limits.
"""

from collections.abc import Callable, Iterator

from diffloom.data import Dataset
from diffloom.errors import IncompatibleParts
from diffloom.recipe.recipe import Recipe
from diffloom.system import System
from diffloom_registry import Problem

Law = Callable[[Recipe, System], Iterator[Problem]]


def contradictions(recipe: Recipe, system: System, dataset: Dataset) -> Iterator[Problem]:
    """Yield every contradiction between the parts of a built system, and between them and the data."""
    yield from keys(recipe, system, dataset)
    yield from classes(recipe, system, dataset)
    laws: list[Law] = [ports]
    if system._schedule is not None and system._denoiser is not None:
        laws += [terminal_snr, output_channels]
    if system._sampler is not None and system._schedule is not None:
        laws += [grids, clipping]
    for law in laws:
        yield from law(recipe, system)


def keys(recipe: Recipe, system: System, dataset: Dataset) -> Iterator[Problem]:
    """What the task or a conditioner reads must be in the data."""
    needs: dict[tuple[str, ...], tuple[str, ...]] = {("task",): system.task.needs}
    needs |= {("conditioners", name): c.needs for name, c in system.conditioners.items()}
    for path, wanted in needs.items():
        for key in wanted:
            if key not in dataset.keys:
                yield Problem(
                    path,
                    f"'{recipe.configs()[path].name}' reads '{key}', and the data have none",
                    expected=f"samples with '{key}'",
                    got=f"samples with {', '.join(dataset.keys)}",
                    remedy="use a data set that has it",
                )


def classes(recipe: Recipe, system: System, dataset: Dataset) -> Iterator[Problem]:
    """A conditioner that declares how many classes it knows must know all that the data have."""
    for name, conditioner in system.conditioners.items():
        known = getattr(conditioner, "classes", None)
        if "label" in conditioner.needs and known is not None and known < len(dataset.classes):
            yield Problem(
                ("conditioners", name, "classes"),
                "the data have more classes than the conditioner knows",
                expected=f"at least {len(dataset.classes)}",
                got=str(known),
                remedy=f"set conditioners.{name}.classes to {len(dataset.classes)}",
            )


def terminal_snr(recipe: Recipe, system: System) -> Iterator[Problem]:
    """ε says nothing where x_T holds no signal: x_0 = (x_T − σ ε)/0 (Lin et al. 2023, section 3)."""
    last = system.schedule.alpha(system.schedule.steps - 1)
    if system.plan.prediction == "eps" and float(last) == 0:
        yield Problem(
            ("denoiser", "prediction"),
            "predicting eps is undefined where the schedule ends at zero signal-to-noise",
            expected="v, x0 or flow",
            got="eps",
            remedy="set denoiser.prediction to v, or use a schedule that keeps a little signal",
        )


def output_channels(recipe: Recipe, system: System) -> Iterator[Problem]:
    """A denoiser answers with as many channels as it is given, or twice that with learned variance."""
    channels, given = system.denoiser.out_channels, system.space.channels
    if channels not in (given, 2 * given):
        yield Problem(
            ("denoiser",),
            "the denoiser's output does not have the channels of what is diffused",
            expected=f"{given}, or {2 * given} with learned variance",
            got=str(channels),
        )


def grids(recipe: Recipe, system: System) -> Iterator[Problem]:
    """Every sampler's grid must lie on the schedule."""
    samplers = {("sampler",): system.sampler}
    for name, config in recipe.samplers.items():
        samplers[("eval", "samplers", name)] = recipe.registry.instantiate(config)  # type: ignore[index,assignment]
    for path, sampler in samplers.items():
        try:
            sampler.grid(system.schedule)
        except IncompatibleParts as error:
            yield Problem((*path,), error.message, error.expected, error.got, error.remedy)


def clipping(recipe: Recipe, system: System) -> Iterator[Problem]:
    """Latents have no limits, so clipping their clean estimate destroys it (Rombach et al. 2022, code and appendix)."""
    clip = getattr(system.sampler, "clip", None)
    if clip is not None and not system.space.bounded:
        yield Problem(
            ("sampler", "clip"),
            "clipping x0 makes no sense in a latent space, whose values have no limits",
            got=str(clip),
            remedy="set sampler.clip to null",
        )


def ports(recipe: Recipe, system: System) -> Iterator[Problem]:
    """What conditioners give must be what the denoiser accepts, and what it needs must be given."""
    if system._denoiser is None:
        for name in system.conditioners:
            yield Problem(("conditioners", name), "there is no denoiser to be told anything", remedy="remove it")
        return
    accepts = system.denoiser.ports
    given = 0
    for name, conditioner in system.conditioners.items():
        path, gives = ("conditioners", name), conditioner.gives
        given += gives.concat
        for port in ("context", "vector"):
            width, wanted = getattr(gives, port), getattr(accepts, port)
            if width and width != wanted:
                yield _port(path, port, width, wanted)
        for tap, channels in gives.affine.items():
            if accepts.affine.get(tap) != channels:
                yield _tap(path, tap, channels, accepts.affine.get(tap))
    if given != accepts.concat:
        who = [name for name, c in system.conditioners.items() if c.gives.concat]
        yield Problem(
            ("denoiser",) if not who else ("conditioners", who[-1]),
            "the channels beside x_t do not match"
            if who
            else f"the denoiser takes {accepts.concat} channels beside x_t, and no conditioner fills that port",
            expected=f"{accepts.concat} channels on the concat port",
            got=str(given),
            remedy=f"set denoiser.concat to {given}"
            if who
            else "add a conditioner that gives them, or leave concat out",
        )
    if accepts.context and not any(c.gives.context for c in system.conditioners.values()):
        yield Problem(
            ("denoiser",),
            f"the denoiser looks for a context of width {accepts.context}, and no conditioner fills that port",
            remedy="add a conditioner that gives a context, or leave the denoiser's context out",
        )


def _port(path: tuple[str, str], port: str, width: int, wanted: int) -> Problem:
    if not wanted:
        return Problem(
            path,
            f"it fills the port '{port}', which the denoiser does not have",
            remedy=f"give the denoiser a {port} width of {width}, or remove the conditioner",
        )
    return Problem(path, f"the width of the port '{port}' does not match", f"{wanted} (the denoiser's)", str(width))


def _tap(path: tuple[str, str], tap: str, channels: int, wanted: int | None) -> Problem:
    if wanted is None:
        return Problem(path, f"it edits the tap '{tap}', which the denoiser does not publish")
    return Problem(path, f"the channels of the tap '{tap}' do not match", f"{wanted} (the denoiser's)", str(channels))
