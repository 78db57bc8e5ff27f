"""Grid: the levels that a sampler visits, as data; and the spacings that choose them.

Law: for every T and every 1 ≤ n ≤ T each spacing gives exactly n strictly descending times in [0, T−1];
    then comes
the end, clean (t = −1) by default. The network is asked at these times and nowhere else, so their number is
the cost.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from diffloom.errors import IncompatibleParts
from diffloom.schedule import Schedule

Spacing = Literal["leading", "trailing", "linspace", "quadratic", "karras", "exponential", "log-snr"]

LOWEST_LOG_SNR = math.log(2.0**-24)
"""Where spacings in noise level begin on a schedule whose own end, zero SNR, is infinitely far."""


_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Level:
    """One noise level in plain numbers, so that a step's coefficients need no tensors.

    Attributes:
        alpha: Weight of the data.
        sigma: Weight of the noise.
        log_snr: ln(α²/σ²); +∞ at the clean end, −∞ where α = 0.
    """

    alpha: float
    sigma: float
    log_snr: float

    @classmethod
    def of(cls, schedule: Schedule, t: float) -> "Level":
        """Return the level of a schedule at time t."""
        return cls(*(float(value) for value in (schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t))))


@dataclass(frozen=True)
class Span:
    """The times of a part of a walk.

    Attributes:
        low: They are greater than this.
        high: They are at most this.
    """

    low: float
    high: float

    def __contains__(self, t: float) -> bool:
        return self.low < t <= self.high

    def __bool__(self) -> bool:
        return self.low < self.high


@dataclass(frozen=True, eq=False)
class Grid:
    """The levels that a sampler visits: data, not arithmetic inside the step; float64 on the CPU.

    Attributes:
        t: (n,), strictly descending, within [0, T−1]: where the network is asked.
        alpha: (n + 1,); the last entry belongs to the end, clean (1) by default.
        sigma: (n + 1,); the last entry belongs to the end, clean (0) by default.
        log_snr: (n + 1,); the last entry belongs to the end, clean (+∞) by default.
        end: The time of the end: −1 is clean.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    log_snr: Tensor
    end: float = -1.0

    @classmethod
    def of(cls, schedule: Schedule, times: Sequence[float] | Tensor, end: float = -1.0) -> "Grid":
        """Return the grid of a schedule at the given times.

        Args:
            schedule: The path.
            times: Strictly descending, within [0, T−1], at least one.
            end: Where the last step leads; below the last time.

        Raises:
            IncompatibleParts: If the times are not so.
        """
        t = torch.as_tensor(times, dtype=torch.float64, device="cpu")
        whole = torch.cat([t, torch.tensor([end], dtype=torch.float64, device="cpu")])
        falling = t.dim() == 1 and t.numel() > 0 and bool((whole.diff() < 0).all())
        if not (falling and bool(t[0] <= schedule.steps - 1) and end >= -1):
            raise IncompatibleParts(
                "a sampler's times do not lead from noise to data",
                where="sampler.timesteps",
                expected=f"strictly descending times within {schedule.steps - 1} … 0, then {end:g}",
                got=", ".join(f"{float(time):g}" for time in t.flatten()[:8]) or "none",
                remedy="correct `timesteps`, or choose another `spacing`, `offset` or `final`",
            )
        return cls(t, schedule.alpha(whole), schedule.sigma(whole), schedule.log_snr(whole), end)

    def __len__(self) -> int:
        """Return n, the number of steps."""
        return self.t.shape[0]

    @cached_property
    def times(self) -> tuple[float, ...]:
        """The n times and the end, as numbers."""
        return (*self.t.tolist(), self.end)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The n + 1 levels, the last being the end."""
        rows = zip(self.alpha.tolist(), self.sigma.tolist(), self.log_snr.tolist(), strict=True)
        return tuple(Level(*row) for row in rows)

    @property
    def scale(self) -> float:
        """√(α² + σ²) at the first level: the size of x_T for data of unit variance; 1 on every vp path."""
        return math.hypot(self.levels[0].alpha, self.levels[0].sigma)

    def span(self, start: float, end: float) -> "Span":
        """Return the times of the steps i of n that lie in a part of the walk: start ≤ i/n and (i + 1)/n ≤ end.

        Both are taken as the decimal numbers that they are written as. A step's times end where the next one's begin,
        give or take a thousandth of it, so that rounding a time moves it to no other step.
        """
        count = len(self)
        first, after = math.ceil(_exact(start) * count), math.floor(_exact(end) * count)
        if first >= after:
            return Span(math.inf, -math.inf)
        return Span(self._edge(after), self._edge(first))

    def _edge(self, index: int) -> float:
        """Return what separates the times of the steps from `index` on from those before."""
        if index == 0:
            return math.inf
        if index == len(self):
            return -math.inf
        return self.times[index] + _TOLERANCE * (self.times[index - 1] - self.times[index])

    def entry(self, strength: float) -> int:
        """Return the index where a run enters that makes the whole steps in `strength` of all: ⌊n · strength⌋."""
        count = len(self)
        made = math.floor(strength * count)
        return count - min(made, count)


def _exact(share: float) -> Fraction:
    return Fraction(repr(float(share)))


def spaced(schedule: Schedule, count: int | None, spacing: Spacing, *, offset: int = 0, rho: float = 7.0) -> Tensor:
    """Return `count` strictly descending times in [0, T−1], float64 (count,).

    - `leading`: i·⌊T/n⌋ + offset, the offset made smaller where it would leave the schedule;
    - `trailing`: round(T − i·T/n) − 1, which starts at T−1;
    - `linspace`: T−1 … 0, evenly spaced and rounded;
    - `quadratic`: ⌊0.8 T (i/(n−1))²⌋ (Song et al. 2021, appendix D.2), moved up where two would meet;
    - `karras`: (σ/α)^{1/ρ} evenly spaced over the table (Karras et al. 2022, eq. 5), at real times;
    - `exponential`, `log-snr`: ln(σ/α), that is log-SNR, evenly spaced: two names of one spacing.

    With n = 1 a spacing that ends at both ends of its range starts at the noisy one.

    Args:
        schedule: The path.
        count: n; `None` for T.
        spacing: As above.
        offset: Of `leading`: 0 in most code, 1 in latent diffusion's.
        rho: Of `karras`.

    Raises:
        IncompatibleParts: If n > T.
    """
    total = schedule.steps
    count = total if count is None else count
    if not 1 <= count <= total:
        raise IncompatibleParts(
            f"{count} sampling steps do not fit a schedule of {total}",
            where="sampler.steps",
            expected=f"1 … {total}",
            got=str(count),
            remedy=f"set sampler.steps to {total} at most, or give the schedule more steps",
        )
    if spacing in _BY_INDEX:
        ascending = _BY_INDEX[spacing](total, count)
        if spacing == "leading":
            shift = min(offset, total - 1 - ascending[-1])
            ascending = [index + shift for index in ascending]
        return torch.tensor(ascending[::-1], dtype=torch.float64, device="cpu")
    return _by_level(schedule, count, rho if spacing == "karras" else None)


def _leading(total: int, count: int) -> list[int]:
    return [i * (total // count) for i in range(count)]


def _trailing(total: int, count: int) -> list[int]:
    return [round(total - i * total / count) - 1 for i in reversed(range(count))]


def _linspace(total: int, count: int) -> list[int]:
    if count == 1:
        return [total - 1]
    return [round(i * (total - 1) / (count - 1)) for i in range(count)]


def _quadratic(total: int, count: int) -> list[int]:
    if count == 1:
        return [4 * total // 5]
    found: list[int] = []
    for i in range(count):
        index = 4 * total * i * i // (5 * (count - 1) ** 2)
        found.append(max(index, found[-1] + 1) if found else index)
    return found


_BY_INDEX: dict[str, Callable[[int, int], list[int]]] = {
    "leading": _leading,
    "trailing": _trailing,
    "linspace": _linspace,
    "quadratic": _quadratic,
}


def _by_level(schedule: Schedule, count: int, rho: float | None) -> Tensor:
    """Return times whose noise levels are evenly spaced in (σ/α)^{1/ρ}, or in ln(σ/α) without ρ."""
    last = schedule.steps - 1
    noisy, clean = float(schedule.log_snr(last)), float(schedule.log_snr(0))
    start = -0.5 * max(noisy, min(LOWEST_LOG_SNR, clean))
    stop = -0.5 * clean
    place = torch.linspace(0, 1, count, dtype=torch.float64, device="cpu")
    if rho is None:
        log_noise = start + place * (stop - start)
    else:
        ends = math.exp(start / rho), math.exp(stop / rho)
        log_noise = rho * (ends[0] + place * (ends[1] - ends[0])).log()
    times = schedule.time(-2 * log_noise)
    if start == -0.5 * noisy:
        times[0] = last
    if count > 1:
        times[-1] = 0
    return times
