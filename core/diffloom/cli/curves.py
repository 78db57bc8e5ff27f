"""A schedule as curves over time, with the levels that a sampler visits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from diffloom.cli.console import aligned
from diffloom.cli.terminal import plotted
from diffloom.errors import ConfigError
from diffloom.kinds import registry

if TYPE_CHECKING:
    from diffloom.recipe.recipe import Recipe
    from diffloom.sampler import Sampler
    from diffloom.schedule import Schedule

_ROWS = 9
_SHOWN = 10


@dataclass(frozen=True)
class Curve:
    """A schedule at all of its times.

    Attributes:
        name: What it was asked for by.
        path: Its family.
        t: 0 … T−1.
        alpha: Weight of the data at each time.
        sigma: Weight of the noise.
        log_snr: ln(α²/σ²).
        beta: Variance of one step.
        visited: The times that the sampler visits; empty without one.
    """

    name: str
    path: str
    t: list[float]
    alpha: list[float]
    sigma: list[float]
    log_snr: list[float]
    beta: list[float]
    visited: list[float]


def curve(name: str, settings: Sequence[str] = ()) -> Curve:
    """Return the curve of a recipe's schedule, or of a schedule with its default values.

    Args:
        name: A recipe, or the name of a schedule.
        settings: `path.to.key=value` texts for the recipe.
    """
    if not Path(name).is_file() and name in registry.names("schedule"):
        return _curve(name, cast("Schedule", registry.build("schedule", name)), None)
    from diffloom.recipe.recipe import load

    return _curve(name, *parts(load(name, settings=settings)))


def described(curves: Sequence[Curve]) -> str:
    """Return curves as text: log-SNR drawn, then the figures of each at some times."""
    series = {curve.name: list(zip(curve.t, curve.log_snr, strict=True)) for curve in curves}
    return "\n\n".join([plotted(series, title="log-SNR over time"), *map(_figures, curves)])


def _figures(found: Curve) -> str:
    last = len(found.t) - 1
    places = sorted({round(last * i / (_ROWS - 1)) for i in range(_ROWS)})
    rows = [["t", "α", "σ", "log-SNR", "β"]]
    columns = (found.alpha, found.sigma, found.log_snr, found.beta)
    rows += [[f"{found.t[i]:g}", *(f"{column[i]:.4g}" for column in columns)] for i in places]
    lines = [f"{found.name}: {found.path}, {len(found.t)} steps", aligned(rows, indent=2)]
    if found.visited:
        lines.append(f"  the sampler visits {len(found.visited)} levels: {_some(found.visited)}")
    return "\n".join(lines)


def _some(times: Sequence[float]) -> str:
    said = [f"{time:.6g}" for time in times]
    half = _SHOWN // 2
    return ", ".join(said if len(said) <= _SHOWN else [*said[:half], "…", *said[-half:]])


def parts(recipe: "Recipe") -> "tuple[Schedule, Sampler | None]":
    """Return a recipe's schedule and sampler, without its data where they do not ask for any."""
    schedule, sampler = recipe.part("schedule"), recipe.part("sampler")
    try:
        if schedule is not None:
            made = recipe.registry.instantiate(schedule)
            walker = recipe.registry.instantiate(sampler) if sampler is not None else None
            return cast("Schedule", made), cast("Sampler | None", walker)
    except ConfigError:
        pass  # one of them needs what only a whole system has
    from diffloom.recipe.build import build

    system = build(recipe, meta=True).system
    return system.schedule, system.sampler if sampler is not None else None


def _curve(name: str, schedule: "Schedule", sampler: "Sampler | None") -> Curve:
    import torch

    t = torch.arange(schedule.steps, dtype=torch.float64)
    return Curve(
        name=name,
        path=schedule.path,
        t=t.tolist(),
        alpha=schedule.alpha(t).tolist(),
        sigma=schedule.sigma(t).tolist(),
        log_snr=schedule.log_snr(t).tolist(),
        beta=schedule.beta(t).tolist(),
        visited=[] if sampler is None else sampler.grid(schedule).t.tolist(),
    )
