"""What the solvers share: the first-order map between two levels, and the memory of multistep methods.

Two exact forms of the probability flow are in use. With y = x/α and ς = σ/α it is dy = ε dς, solved by
`transfer` for constant ε. With λ = log-SNR/2 it is an exponential integrator in the clean estimate, solved
by `towards` for constant x̂_0. Both are DDIM, and differ in what higher orders interpolate.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from diffloom.arithmetic import weighted
from diffloom.grid import Grid, Level
from diffloom.prediction import Denoised
from diffloom.sampler import State


def transfer(x: Tensor, eps: Tensor, here: Level, there: Level) -> Tensor:
    """Return x moved along constant ε: x_s = (α_s/α_t) x_t + (σ_s − σ_t α_s/α_t) ε (Liu et al. 2022, eq. 11).

    Args:
        x: Data at `here`, where α > 0.
        eps: The noise, of one evaluation or of several combined.
        here: The level of x.
        there: The level to reach, in either direction.
    """
    ratio = there.alpha / here.alpha
    return weighted((ratio, x), (there.sigma - ratio * here.sigma, eps))


def place(said: Denoised, there: Level) -> Tensor:
    """Return α x̂_0 + σ ε̂ at a level: `transfer` for one evaluation, defined at zero SNR too."""
    return weighted((there.alpha, said.x0), (there.sigma, said.eps))


@dataclass(frozen=True)
class Towards:
    """A first-order step in the clean estimate: x_s = keep · x_t + pull · x̂_0 + std · z (Lu et al. 2022b).

    Attributes:
        keep: (σ_s/σ_t) e^{−ηh}, with h the gain in λ = log-SNR/2.
        pull: α_s (1 − e^{−(1+η)h}).
        std: σ_s √(1 − e^{−2ηh}), 0 for η = 0.
        length: (1 + η) h, infinite where the step starts at zero SNR or ends at clean data.
    """

    keep: float
    pull: float
    std: float
    length: float


def towards(here: Level, there: Level, eta: float = 0.0) -> Towards:
    """Return the step between two levels; every limit, clean end and zero SNR, is a number."""
    h = gain(here, there)
    noise = eta * h if eta > 0 else 0.0
    return Towards(
        keep=there.sigma / here.sigma * math.exp(-noise),
        pull=there.alpha * -math.expm1(-(h + noise)),
        std=there.sigma * math.sqrt(-math.expm1(-2 * noise)),
        length=h + noise,
    )


def gain(here: Level, there: Level) -> float:
    """Return h = λ_s − λ_t, half the gain in log-SNR: positive towards data, infinite at either end."""
    return (there.log_snr - here.log_snr) / 2


def recall(state: State, name: str) -> list[Tensor]:
    """Return what was remembered under a name, latest first."""
    found: list[Tensor] = []
    while (key := f"{name}.{len(found) + 1}") in state.memory:
        found.append(state.memory[key])
    return found


def remember(name: str, latest_first: Sequence[Tensor], limit: int) -> Mapping[str, Tensor]:
    """Return the memory that holds the latest tensors of a history."""
    return {f"{name}.{k}": value for k, value in enumerate(latest_first[:limit], 1)}


def past_levels(grid: Grid, state: State, count: int) -> list[Level]:
    """Return the levels of the last `count` steps, latest first."""
    return [grid.levels[state.index - k] for k in range(1, count + 1)]


def finite_past(grid: Grid, state: State, history: Sequence[Tensor]) -> list[tuple[Tensor, Level]]:
    """Return the remembered evaluations with their levels, as far back as log-SNR is finite, latest first."""
    pairs = zip(history, past_levels(grid, state, len(history)), strict=True)
    return [(value, level) for value, level in pairs if math.isfinite(level.log_snr)]
