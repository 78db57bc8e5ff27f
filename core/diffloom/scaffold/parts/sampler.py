"""Fresh: steps to the next level with the estimated noise, part of which is drawn anew.

    x_s = α_s x̂_0 + σ_s (√(1 − f²) ε̂ + f z),    f² = 1 − (SNR_t/SNR_s)^rate

Law: with rate 0 it is the first-order solver of the probability flow; with rate 1 it draws as much as ancestral
sampling, whatever the steps; with any rate it has the path's marginals as steps go to infinity. A step is pure: all
that it knows is in `State`, all randomness in `noise`.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from diffloom import Grid, Noise, Sampler, Schedule, State
from diffloom.arithmetic import weighted
from diffloom.sampler import Level, Model


@dataclass(kw_only=True, eq=False)
class Fresh(Sampler):
    """A first-order sampler with any amount of fresh noise."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"rate": 0.5})  # what the contract tests

    rate: Annotated[float, Field(ge=0, description="how fast noise is replaced as log-SNR rises; 0: not at all")] = 0.0

    @property
    def stochastic(self) -> bool:
        """Whether noise is drawn."""
        return self.rate > 0

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here)
        fresh = self.share(here, there) if there.sigma > 0 else 0.0  # nothing is noise at the clean end
        x = weighted((there.alpha, said.x0), (there.sigma * math.sqrt(1 - fresh), said.eps))
        if fresh > 0:
            x = weighted((1.0, x), (there.sigma * math.sqrt(fresh), self.draw(noise, state)))
        return State(x, state.index + 1)

    def share(self, here: Level, there: Level) -> float:
        """Return f², the share of the noise's variance that is drawn anew in a step."""
        return -math.expm1(self.rate * (here.log_snr - there.log_snr)) if self.stochastic else 0.0
