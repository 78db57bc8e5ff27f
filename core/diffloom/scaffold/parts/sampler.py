"""Fresh: steps to the next level with the estimated noise, part of which is drawn anew.

    x_s = α_s x̂_0 + σ_s (√(1 − f²) ε̂ + f z),    f = `fresh`

Law: with f = 0 it is the first-order solver of the probability flow; with f = 1 every level is drawn anew from what
the network takes for clean data. A step is pure: all that it knows is in `State`, all randomness in `noise`.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from diffloom import Grid, Noise, Sampler, Schedule, State
from diffloom.arithmetic import weighted
from diffloom.sampler import Model


@dataclass(kw_only=True, eq=False)
class Fresh(Sampler):
    """A first-order sampler with any share of fresh noise."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"fresh": 0.5})  # what the contract tests

    fresh: Annotated[float, Field(ge=0, le=1, description="f: 0 is deterministic, 1 draws every level anew")] = 0.0

    @property
    def stochastic(self) -> bool:
        """Whether f > 0."""
        return self.fresh > 0

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here)
        kept = math.sqrt(1 - self.fresh**2)
        x = weighted((there.alpha, said.x0), (there.sigma * kept, said.eps))
        if self.stochastic and there.sigma > 0:
            x = weighted((1.0, x), (there.sigma * self.fresh, self.draw(noise, state)))
        return State(x, state.index + 1)
