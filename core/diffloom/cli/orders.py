"""How samplers converge, as text; see `diffloom.testing.convergence` for what is measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from diffloom.cli.console import aligned
from diffloom.cli.curves import parts
from diffloom.cli.terminal import plotted
from diffloom.errors import IncompatibleParts
from diffloom.kinds import registry

if TYPE_CHECKING:
    from diffloom.sampler import Sampler
    from diffloom.testing.convergence import Measured


@dataclass(frozen=True)
class Convergence:
    """One sampler's errors.

    Attributes:
        name: What it was asked for by.
        claimed: The order that it claims.
        order: The order measured by the last two runs.
        stochastic: Whether the error is that of moments.
        runs: From few steps to many.
    """

    name: str
    claimed: int
    order: float
    stochastic: bool
    runs: "Sequence[Measured]"

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {**vars(self), "runs": [vars(run) for run in self.runs]}


def converge(name: str, counts: Sequence[int], settings: Sequence[str] = ()) -> Convergence:
    """Return how a sampler converges.

    Args:
        name: A sampler with its default values, on a variance-exploding schedule; or a recipe, on its own.
        counts: Numbers of steps, rising.
        settings: `path.to.key=value` texts for the recipe.
    """
    from diffloom.testing.convergence import measure, order

    if not Path(name).is_file() and name in registry.names("sampler"):
        sampler, schedule = cast("Sampler", registry.build("sampler", name)), None
    else:
        from diffloom.recipe.recipe import load

        schedule, found = parts(load(name, settings=settings))
        if found is None:
            raise IncompatibleParts("the recipe has no sampler", where=name, remedy="name a sampler in it")
        sampler = found
    runs = measure(sampler, counts, schedule)
    return Convergence(name, sampler.order, order(runs), sampler.stochastic, runs)


def described(found: Sequence[Convergence]) -> str:
    """Return errors against evaluations as text: drawn on logarithmic axes, then in figures."""
    series = {
        each.name: [(math.log10(run.evaluations), math.log10(run.error)) for run in each.runs if run.error > 0]
        for each in found
    }
    title = "log₁₀ of the error over log₁₀ of the evaluations, Gaussian data"
    counts = [run.steps for run in found[0].runs] if found else []
    rows = [["sampler", "claims", "measured", "error of", *(f"n = {count}" for count in counts)]]
    for each in found:
        measured = "unknown" if math.isnan(each.order) else f"{each.order:.2f}"
        errors = [f"{run.error:.1e} ({run.evaluations})" for run in each.runs]
        rows.append([each.name, str(each.claimed), measured, "moments" if each.stochastic else "points", *errors])
    return f"{plotted(series, title=title)}\n\n{aligned(rows)}\n(evaluations in brackets)"
