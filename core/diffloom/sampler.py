"""Sampler: a grid of levels and a pure step from one level to the next.

A sampler has no hidden state. `State(x, index, memory)` holds tensors only, so sampling can stop after any step, be
saved, and go on bit-equal; noise is an argument. A model is any callable `model(x_t, t) -> Denoised`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from diffloom.noise import Noise
from diffloom.prediction import Denoised
from diffloom.schedule import Schedule

Model = Callable[[Tensor, Tensor], Denoised]
"""`model(x_t, t)`: x_t (B, C, *spatial); t a 0-d float64 tensor, one level for the whole batch."""


@dataclass(frozen=True)
class Grid:
    """The levels that a sampler visits: data, not arithmetic inside the step.

    Attributes:
        t: (n,) float64, strictly descending, within [0, T−1].
        alpha: (n + 1,) float64; the last entry belongs to the end, clean (1) by default.
        sigma: (n + 1,) float64; the last entry belongs to the end, clean (0) by default.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class State:
    """Where sampling stands: x at level `index` of the grid, and what a multistep sampler remembers."""

    x: Tensor
    index: int
    memory: Mapping[str, Tensor] = field(default_factory=dict)


class Sampler(ABC):
    """Base of all samplers; see the module's text for the law."""

    order: int

    @abstractmethod
    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise) -> State:
        """Go from level `state.index` of the grid to the next; never mutates `state`."""
