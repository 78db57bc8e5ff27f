"""Convergence: how far a sampler is from Gaussian data as it is given more steps.

Law: on levels evenly spaced in log-SNR, from the last to level 0, the error of a sampler of order p falls as n^−p.

A deterministic sampler is held against the exact probability flow, point by point. What a stochastic one makes is a
Gaussian too where the data are and its steps are affine; its mean and standard deviation are found without drawing,
by sending zero, the start and each step's noise through it one at a time.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffloom.grid import Grid, spaced
from diffloom.noise import Noise
from diffloom.path import from_log_snr
from diffloom.prediction import Denoised
from diffloom.sampler import Sampler, State
from diffloom.schedule import Schedule
from diffloom.testing.oracles import DiagonalGaussian
from diffloom.testing.strategies import Tabled

__all__ = ["Measured", "exploding", "measure", "order"]

_MEAN = 0.3
_STDS = (0.3, 0.5, 0.8)
"""Several widths at once, as the error of a single one may pass through zero."""
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        steps: n.
        evaluations: How often the model was asked.
        error: Euclidean distance over the widths: of points, or of means and standard deviations. NaN where the
            latter cannot be told, as steps are not affine.
    """

    steps: int
    evaluations: int
    error: float


def exploding(steps: int = 1000) -> Schedule:
    """Return a variance-exploding schedule with log-SNR falling evenly, σ from 0.1 to 77."""
    alpha, sigma = from_log_snr(torch.linspace(4.6, -8.7, steps, dtype=torch.float64), "ve")
    return Tabled(alpha=alpha, sigma=sigma)


def measure(sampler: Sampler, counts: Sequence[int], schedule: Schedule | None = None) -> list[Measured]:
    """Return the errors of runs with the given numbers of steps; the sampler's own grid is not used.

    Args:
        sampler: What is measured.
        counts: Numbers of steps, each less than the schedule's.
        schedule: The path; `exploding()` by default.
    """
    schedule = exploding() if schedule is None else schedule
    return [_run(sampler, schedule, count) for count in counts]


def order(found: Sequence[Measured]) -> float:
    """Return the order that the last two runs show; infinite where no error is left."""
    before, after = found[-2:]
    if after.error < _ROUNDING:
        return math.inf
    return math.log(before.error / after.error) / math.log(after.steps / before.steps)


def _run(sampler: Sampler, schedule: Schedule, count: int) -> Measured:
    times = spaced(schedule, count + 1, "log-snr")
    grid = Grid.of(schedule, times[:-1], 0.0)
    oracle = DiagonalGaussian(schedule, _MEAN, torch.tensor(_STDS, dtype=torch.float64))
    asked = 0

    def model(x: Tensor, t: Tensor) -> Denoised:
        nonlocal asked
        asked += 1
        return oracle(x, t)

    noise = _OneByOne(3 + 2 * count) if sampler.stochastic else None
    x = torch.zeros(3 if noise is None else len(noise), len(_STDS), dtype=torch.float64)
    x[1:3] = grid.scale
    state = State(x, 0)
    while state.index < count:
        state = sampler.step(model, schedule, grid, state, noise)
    if noise is None:
        error = state.x[1] - oracle.flow(x[1:], grid.times[0], 0)[0]
    else:
        error = _moments(state.x, oracle, grid) - _moments_of_data(oracle)
    return Measured(count, asked, float(error.norm()))


def _moments(x: Tensor, oracle: DiagonalGaussian, grid: Grid) -> Tensor:
    """Return means and standard deviations of what an affine run makes of q_T, from its rows one by one."""
    start, levels = x[1] - x[0], grid.levels[0]
    together = x[1] + (x[3:] - x[0]).sum(0)
    if not torch.allclose(together, x[2], rtol=1e-6, atol=1e-6):
        return torch.full((2 * len(_STDS),), math.nan, dtype=torch.float64)
    spread = levels.alpha**2 * oracle.variance + levels.sigma**2
    mean = x[0] + start / grid.scale * levels.alpha * _MEAN
    variance = (start / grid.scale) ** 2 * spread + (x[3:] - x[0]).square().sum(0)
    return torch.cat([mean, variance.sqrt()])


def _moments_of_data(oracle: DiagonalGaussian) -> Tensor:
    """Return means and standard deviations of q_0, where runs end."""
    alpha, sigma = oracle.schedule.alpha(0), oracle.schedule.sigma(0)
    spread = (alpha**2 * oracle.variance + sigma**2).sqrt()
    return torch.cat([(alpha * _MEAN).expand(len(_STDS)), spread])


class _OneByOne(Noise):
    """Noise that is 1 in one item for each draw and 0 elsewhere; items 0 and 1 get none, item 2 gets all."""

    def __init__(self, count: int) -> None:
        super().__init__(range(count))
        self._rows: dict[tuple[Hashable, ...], int] = {}

    def normal(self, like: Tensor, *key: Hashable) -> Tensor:
        """Return the unit noise of this draw."""
        row = self._rows.setdefault(key, 3 + len(self._rows))
        noise = torch.zeros_like(like)
        noise[2] = noise[row] = 1
        return noise
