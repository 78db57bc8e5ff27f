"""Contradictions: parts that are each right and together wrong. One small function per law, with reason and remedy.

All are judged on parts, never on names: by what a schedule's table says, what a sampler's grid needs, which ports are
filled, whether what is diffused has limits.
"""

import math
from collections.abc import Callable, Iterator
from typing import cast

from diffloom.autoencoder import require_scaled, require_tiles
from diffloom.data import Dataset
from diffloom.errors import IncompatibleParts
from diffloom.grid import Grid, Level
from diffloom.recipe.recipe import Recipe
from diffloom.sampler import Sampler
from diffloom.system import System
from diffloom_registry import Config, Problem

Law = Callable[[Recipe, System], Iterator[Problem]]
Path = tuple[str, ...]

_MOST_DATA = 0.25
"""How much of the variance at the first level of a walk may be data's; in common schedules it is below 0.005."""


def contradictions(recipe: Recipe, system: System, dataset: Dataset) -> Iterator[Problem]:
    """Yield every contradiction between the parts of a built system, and between them and the data."""
    yield from keys(recipe, system, dataset)
    yield from classes(recipe, system, dataset)
    laws: list[Law] = [told, tiles, ports, guidance]
    if system._schedule is not None and system._denoiser is not None:
        laws += [latent_scale, terminal_snr, output_channels]
    for law in laws:
        yield from law(recipe, system)
    if system._schedule is not None and system._sampler is not None:
        yield from walks(recipe, system)


def keys(recipe: Recipe, system: System, dataset: Dataset) -> Iterator[Problem]:
    """What the task, where it trains, or a conditioner reads must be in the data.

    What a conditioner can do without must be there where it learns: it would never see it.
    """
    learns = recipe.header.train.steps > 0
    needs: dict[tuple[str, ...], tuple[str, ...]] = {("task",): system.task.needs if learns else ()}
    needs |= {("conditioners", name): c.needs for name, c in system.conditioners.items()}
    for name, part in system.conditioners.items():
        if learns and _learned_here(recipe.conditioners[name]):
            needs["conditioners", name] += part.wants
    for path, wanted in needs.items():
        for key in wanted:
            if key not in dataset.holds:
                yield Problem(
                    path,
                    f"'{recipe.configs()[path].name}' reads '{key}', and the data have none",
                    expected=f"samples with '{key}'",
                    got=f"samples with {', '.join(dataset.holds)}",
                    remedy="use a data set that has it, or a transform that makes it",
                )
    held = set(dataset.keys)
    for index, transform in enumerate(dataset.transforms):
        for key in sorted(set(transform.needs) - held):
            yield Problem(
                ("data", "transforms", index),
                f"the transform reads '{key}', and no sample has it by then",
                expected=f"samples with '{key}'",
                got=f"samples with {', '.join(sorted(held))}",
                remedy="use a data set that has it, or put the transform that makes it before this one",
            )
        held |= set(transform.adds)


def told(recipe: Recipe, system: System) -> Iterator[Problem]:
    """What a task wants the network to be told must be read by a conditioner."""
    read = {key for part in system.conditioners.values() for key in (*part.needs, *part.wants)}
    for key in system.task.told:
        if key not in read:
            yield Problem(
                ("task",),
                f"the network must be told of '{key}', and no conditioner reads it",
                expected=f"a conditioner that reads '{key}'",
                got=f"the conditioners {', '.join(system.conditioners)}" if system.conditioners else "none",
                remedy="add one, such as `mask` or `image`, and let the denoiser have its port",
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


def tiles(recipe: Recipe, system: System) -> Iterator[Problem]:
    """Tiles must be larger than what a pixel sees of the latents around it."""
    try:
        require_tiles(system.autoencoder)
    except IncompatibleParts as error:
        yield _refused(("sample", "tile"), error)


def latent_scale(recipe: Recipe, system: System) -> Iterator[Problem]:
    """Latents are diffused at unit size (Rombach et al. 2022, appendix G); weights may tell it when they are read."""
    if _weighted(recipe.parts["autoencoder"]):
        return
    try:
        require_scaled(system.autoencoder)
    except IncompatibleParts as error:
        yield _refused(("autoencoder",), error)


def _weighted(config: Config) -> bool:
    """Return whether a part, or one inside it, is given weights."""
    inside = [child for child in config.children.values() if isinstance(child, Config)]
    return getattr(config.extras, "weights", None) is not None or any(map(_weighted, inside))


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


def guidance(recipe: Recipe, system: System) -> Iterator[Problem]:
    """Guidance compares with the null, and both have to be seen in training (Ho & Salimans 2022, algorithm 1).

    Nothing is said of networks that are not trained here from the start.
    """
    loaded = [getattr(config.extras, "weights", None) for config in recipe.parts.values()]
    if recipe.header.train.steps == 0 or any(loaded):
        return
    for name, how in system.plan.conditioning.items():
        if not _learned_here(recipe.conditioners[name]):
            continue
        if how.drop == 0 and how.guidance not in (None, 1):
            yield Problem(
                ("conditioners", name),
                "guidance compares with a network that is told nothing, and training always tells it something",
                expected="drop above 0",
                got=f"drop: 0 with guidance: {how.guidance:g}",
                remedy=f"set conditioners.{name}.drop to 0.1, or its guidance to null",
            )
        if how.drop == 1 and how.guidance != 0:
            yield Problem(
                ("conditioners", name),
                "training never tells the network this condition, and sampling does",
                expected="drop below 1",
                got="1",
                remedy=f"set conditioners.{name}.drop to 0.1, or remove the conditioner",
            )


def _learned_here(config: Config) -> bool:
    """Return whether all that a part knows it learns in this run."""
    return not (getattr(config.extras, "weights", None) or getattr(config.extras, "freeze", False))


def walks(recipe: Recipe, system: System) -> Iterator[Problem]:
    """Every sampler, the recipe's own and those of `eval`, must be able to walk this schedule in this space."""
    yield from walk(("sampler",), system.sampler, system)
    for name, config in recipe.samplers.items():
        path = ("eval", "samplers", name)
        try:
            sampler = recipe.registry.instantiate(config)
        except IncompatibleParts as error:
            yield _refused(path, error)
            continue
        yield from walk(path, cast(Sampler, sampler), system)


def walk(path: Path, sampler: Sampler, system: System) -> Iterator[Problem]:
    """Yield what keeps one sampler from walking."""
    yield from clipping(path, sampler, system)
    yield from spread(path, sampler, system)
    try:
        grid = sampler.grid(system.schedule)
    except IncompatibleParts as error:
        yield _refused(path, error)
    else:
        yield from start(path, grid, system)
        yield from turns(path, grid, system)


def _refused(path: Path, error: IncompatibleParts) -> Problem:
    return Problem(path, error.message, error.expected, error.got, error.remedy)


def clipping(path: Path, sampler: Sampler, system: System) -> Iterator[Problem]:
    """Latents have no limits, so clipping their clean estimate destroys it (Rombach et al. 2022, code and appendix)."""
    space = system.space
    if sampler.clip is None:
        return
    if not space.bounded:
        yield Problem(
            (*path, "clip"),
            "clipping x0 makes no sense in a latent space, whose values have no limits",
            got=str(sampler.clip),
            remedy=f"set {'.'.join(path)}.clip to null",
        )
    elif sampler.clip < (largest := max(abs(space.low or 0.0), abs(space.high or 0.0))):
        yield Problem(
            (*path, "clip"),
            "clipping x0 cuts off values that the data have",
            expected=f"at least {largest:g}",
            got=f"{sampler.clip:g}",
            remedy=f"set {'.'.join(path)}.clip to {largest:g}",
        )


def spread(path: Path, sampler: Sampler, system: System) -> Iterator[Problem]:
    """A learned variance is the second half of the denoiser's channels (Nichol & Dhariwal 2021, eq. 15)."""
    channels = system.space.channels
    if sampler.needs_spread and system._denoiser is not None and system.denoiser.out_channels != 2 * channels:
        yield Problem(
            path,
            "the sampler asks for a learned variance, and the denoiser gives none",
            expected=f"a denoiser with {2 * channels} output channels",
            got=str(system.denoiser.out_channels),
            remedy="let the denoiser learn its variance, or let the sampler use a fixed one",
        )


def turns(path: Path, grid: Grid, system: System) -> Iterator[Problem]:
    """A conditioner that is told during a part of the walk must be told at one step at least."""
    for name, how in system.plan.conditioning.items():
        if not grid.span(how.start, how.end):
            yield Problem(
                ("conditioners", name),
                f"none of the {len(grid)} steps of {'.'.join(path)} lies between its start and its end",
                expected=f"start and end at least {1 / len(grid):.3g} apart, start first",
                got=f"start: {how.start:g} with end: {how.end:g}",
                remedy="widen them, or take more steps",
            )


def start(path: Path, grid: Grid, system: System) -> Iterator[Problem]:
    """New images begin as pure noise, so the first level must hold little else (Lin et al. 2023, section 3.3)."""
    last, first = Level.of(system.schedule, system.schedule.steps - 1), grid.levels[0]
    if system.task.paired or _data_in(first) <= _MOST_DATA:
        return
    got = f"{100 * _data_in(first):.0f} % at time {grid.times[0]:g}"
    expected = f"at most {100 * _MOST_DATA:.0f} % of data in what looks like noise"
    if _data_in(last) > _MOST_DATA:
        yield Problem(
            ("schedule",),
            "the schedule ends with data still to be seen, and sampling begins with noise alone",
            expected=expected,
            got=got,
            remedy="give the schedule more noise: more steps, or a larger β or σ at its end",
        )
    else:
        yield Problem(
            path,
            "the first level that the sampler visits is not noisy enough to begin with noise alone",
            expected=expected,
            got=got,
            remedy="use spacing: trailing, or more steps",
        )


def _data_in(level: Level) -> float:
    """Return the share of data of unit variance in the variance at a level."""
    return 1 / (1 + math.exp(-level.log_snr)) if level.log_snr > -700 else 0.0


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
