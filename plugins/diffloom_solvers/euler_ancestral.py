"""Ancestral Euler: each step overshoots towards the data and puts fresh noise back.

    ς_up = min(ς_s, η ς_s √(1 − ς_s²/ς_t²)),    ς_down² = ς_s² − ς_up²,    ς = σ/α

The step goes to ς_down by Euler's method and adds ς_up z. With η = 1 this is ancestral sampling of DDPM.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from diffloom.arithmetic import weighted
from diffloom.grid import Grid, Level
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule


@dataclass(kw_only=True, eq=False)
class EulerAncestral(Sampler):
    """Euler's method with fresh noise in every step but the last."""

    eta: Annotated[float, Field(ge=0, description="how much noise is fresh: 0 is Euler, 1 is DDPM")] = 1.0

    @property
    def stochastic(self) -> bool:
        """Whether η > 0."""
        return self.eta > 0

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here)
        down, up = self.split(here, there)
        x = weighted((there.alpha, said.x0), (down, said.eps))
        if up > 0:
            x = weighted((1.0, x), (up, self.draw(noise, state)))
        return State(x, state.index + 1)

    def split(self, here: Level, there: Level) -> tuple[float, float]:
        """Return (kept, fresh) noise at `there`, α ς_down and α ς_up: their squares sum to σ²."""
        fresh = min(1.0, self.eta * math.sqrt(-math.expm1(here.log_snr - there.log_snr)))
        return there.sigma * math.sqrt(1 - fresh**2), there.sigma * fresh
