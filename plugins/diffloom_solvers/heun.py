"""Heun's method for dy = ε dς, y = x/α, ς = σ/α: Euler's step, then again with the mean of both ends' slopes.

Karras et al. 2022, algorithm 1. Two evaluations a step but for the last, 2n − 1 in all.
"""

from dataclasses import dataclass

from torch import Tensor

from diffloom.arithmetic import weighted
from diffloom.grid import Grid, Level
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule
from diffloom_solvers.steps import place, transfer


@dataclass(kw_only=True, eq=False)
class Heun(Sampler):
    """Heun's method, second order."""

    order = 2

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here = grid.levels[state.index]
        return State(self.advance(model, grid, state, state.x, grid.t[state.index], here), state.index + 1)

    def advance(self, model: Model, grid: Grid, state: State, x: Tensor, t: Tensor, here: Level) -> Tensor:
        """Return x, at time t and level `here`, brought to the level after `state.index`."""
        there = grid.levels[state.index + 1]
        said = self.denoise(model, x, t, here)
        reached = place(said, there)
        if there.sigma == 0 or here.alpha == 0 or state.index + 1 == len(grid):
            return reached
        again = self.denoise(model, reached, grid.t[state.index + 1], there)
        return transfer(x, weighted((0.5, said.eps), (0.5, again.eps)), here, there)
