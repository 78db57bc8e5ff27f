"""Euler's method for dy = ε dς, y = x/α, ς = σ/α (Karras et al. 2022, algorithm 1 without its correction)."""

from dataclasses import dataclass

from diffloom.grid import Grid
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule
from diffloom_solvers.steps import place


@dataclass(kw_only=True, eq=False)
class Euler(Sampler):
    """Euler's method: one evaluation a step, first order; the same map as deterministic DDIM."""

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        said = self.denoise(model, state.x, grid.t[state.index], grid.levels[state.index])
        return State(place(said, grid.levels[state.index + 1]), state.index + 1)
