"""The two-step Adams–Bashforth method for dy = ε dς with y = x/α, ς = σ/α, on steps of any length.

y_s = y_t + (ς_s − ς_t) (ε_t + r/2 (ε_t − ε_before)),    r = (ς_s − ς_t)/(ς_t − ς_before)
"""

import math
from dataclasses import dataclass

from diffloom import Grid, Sampler, Schedule, State
from diffloom.noise import Noise
from diffloom.sampler import Level, Model


@dataclass(kw_only=True, eq=False)
class TwoStep(Sampler):
    """Second order with one evaluation a step; the first step is Euler's."""

    order = 2

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here)
        x = there.alpha * said.x0 + there.sigma * said.eps
        if "eps" in state.memory:
            before = relative(grid.levels[state.index - 1])
            length = relative(there) - relative(here)
            share = length / (relative(here) - before) / 2
            x = x + there.alpha * length * share * (said.eps - state.memory["eps"])
        return State(x.to(state.x.dtype), state.index + 1, {"eps": said.eps})


def relative(level: Level) -> float:
    """Return ς = σ/α, infinite where nothing of the data is left."""
    return level.sigma / level.alpha if level.alpha > 0 else math.inf
