"""KnownPixels: walks as another sampler does, and keeps what is known (Lugmayr et al. 2022, RePaint, algorithm 1).

Law: after each step of the sampler to a level s the known part is put in, noised to that level:

    x_s ← m ⊙ x_s + (1 − m) ⊙ (α_s z + σ_s ε),     m = 1 where nothing is known.

With more than one pass the result is noised back,  x_t ~ q(x_t | x_s),  and the step is made again, so that what is
made comes to agree with what is known; not so at the clean end. The last step leaves the known part as it is, z.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffloom.arithmetic import weighted
from diffloom.grid import Grid
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule


@dataclass(kw_only=True, eq=False)
class KnownPixels(Sampler):
    """A sampler that keeps the known part of a batch.

    Attributes:
        inner: Makes the steps, on its own grid.
        known: z, clean data (B, C, *spatial); where m = 1 it does not matter.
        mask: m, (B, 1, *spatial), 0 or 1.
        passes: How often each step is made.
        noise: Draws the noise of the known part and of going back; one stream per item.
    """

    inner: Sampler
    known: Tensor
    mask: Tensor
    passes: int = 1
    noise: Noise = field(default_factory=lambda: Noise(()))

    def grid(self, schedule: Schedule) -> Grid:
        """Return the inner sampler's grid."""
        return self.inner.grid(schedule)

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level with what is known in its place; see `Sampler.step`."""
        last = state.index + 1 == len(grid) and grid.end < 0
        for number in range(1 if last else self.passes):
            if number:
                state = self._back(schedule, grid, state, number)
            stream = None if noise is None else noise.within("pass", number)
            state = self._kept(grid, self.inner.step(model, schedule, grid, state, stream), number)
        return state

    def _kept(self, grid: Grid, state: State, number: int) -> State:
        level = grid.levels[state.index]
        eps = self.noise.normal(self.known, "known", state.index, number)
        known = weighted((level.alpha, self.known), (level.sigma, eps)) if level.sigma else self.known
        return State(torch.where(self.mask > 0, state.x, known), state.index, state.memory)

    def _back(self, schedule: Schedule, grid: Grid, state: State, number: int) -> State:
        """Return to the level before, by a draw from the forward process."""
        alpha, variance = schedule.transition(grid.times[state.index - 1], grid.times[state.index])
        eps = self.noise.normal(state.x, "back", state.index, number)
        return State(weighted((float(alpha), state.x), (float(variance.sqrt()), eps)), state.index - 1)
