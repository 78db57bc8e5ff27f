"""Schedule: the Gaussian path  x_t = α_t x_0 + σ_t ε,  t = 0 … T−1, clean at t = −1 (α = 1, σ = 0).

Law: log-SNR  ln(α_t²/σ_t²)  falls strictly with t. A schedule gives one table; everything else follows from
    it in
float64, for integer and for real t. Variance-preserving (α² + σ² = 1), variance-exploding (α = 1) and
rectified-flow (α + σ = 1) paths are all such tables, and real-valued t stays on its path.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from diffloom.arithmetic import per_item, weighted
from diffloom.errors import DiffloomError
from diffloom.path import Knots, Path

Time = int | float | Tensor
"""A time in [−1, T−1]: a number, or a tensor of any shape, integer or real. −1 is clean."""

_KEPT = 4096


class ScheduleError(DiffloomError, ValueError):
    """A schedule's table breaks the law, or a time lies outside it."""


@dataclass(frozen=True)
class Gaussian:
    """A diagonal normal distribution.

    Attributes:
        mean: The mean, any shape.
        variance: The variance, broadcastable to the mean.
    """

    mean: Tensor
    variance: Tensor

    def sample(self, z: Tensor) -> Tensor:
        """Return mean + √variance · z for standard normal z, the shape of the mean."""
        return weighted((1.0, self.mean), (self.variance.sqrt(), z))


class Schedule(ABC):
    """The noise levels of a diffusion. Subclasses set `steps` and give `table`; the rest is final.

    All methods compute in float64, take any `Time` and return float64 tensors of its shape, on its device
    (CPU for numbers), without waiting for that device. Times outside [−1, T−1] raise ScheduleError where
    they can be seen without waiting (numbers, CPU tensors) and count as the nearest end elsewhere.

    Attributes:
        steps: T, the number of noisy levels.
    """

    steps: int

    @abstractmethod
    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ): float64 tensors of shape (steps,) on the CPU, log-SNR strictly falling."""

    @property
    @final
    def path(self) -> Path:
        """The family: `vp` (α² + σ² = 1), `ve` (α = 1), `flow` (α + σ = 1) or `other`."""
        return self._knots(torch.device("cpu")).path

    @property
    @final
    def zero_terminal_snr(self) -> bool:
        """Whether nothing of the data is left at T−1 (α = 0): the noise alone then says nothing about x_0."""
        return bool(self._knots(torch.device("cpu")).alpha[-1] == 0)

    @final
    def alpha(self, t: Time) -> Tensor:
        """Return α_t, the weight of the data."""
        return self._at(t)[0]

    @final
    def sigma(self, t: Time) -> Tensor:
        """Return σ_t, the weight of the noise."""
        return self._at(t)[1]

    @final
    def log_snr(self, t: Time) -> Tensor:
        """Return ln(α_t²/σ_t²): +∞ at t = −1, −∞ where nothing of the data is left."""
        return self._at(t)[2]

    @final
    def time(self, log_snr: float | Tensor) -> Tensor:
        """Return the real t with the given log-SNR: the inverse of `log_snr`, clamped to [−1, T−1]."""
        value = self._real(log_snr)
        return self._knots(value.device).time(value)

    @final
    def beta(self, t: Time) -> Tensor:
        """Return β_t, the variance of `transition(t, t − 1)`, t ≥ 0; a real t < 1 steps to −1."""
        return self.transition(t, t - 1 if isinstance(t, int) else self._real(t).sub(1).clamp(min=-1))[1]

    @final
    def diffuse(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Return x_t = α_t x_0 + σ_t ε (Ho et al. 2020, eq. 4).

        Args:
            x0: Clean data, (B, …), any float type; the result has the same.
            t: One time, or one per item (B,).
            noise: ε, the shape and type of x0.
        """
        alpha, sigma, _ = self._at(t)
        return weighted((alpha, x0), (sigma, noise))

    @final
    def transition(self, t: Time, s: Time) -> tuple[Tensor, Tensor]:
        """Return (α_{t|s}, σ²_{t|s}) of q(x_t | x_s) = N(α_{t|s} x_s, σ²_{t|s} I), s < t.

        α_{t|s} = α_t/α_s and σ²_{t|s} = σ_t² − α_{t|s}² σ_s² = −σ_t² expm1(log-SNR_t − log-SNR_s), which
        does not cancel (Kingma et al. 2021, appendix A).
        """
        (alpha_t, sigma_t, log_snr_t), (alpha_s, _, log_snr_s) = self._both(t, s)
        return alpha_t / alpha_s, -sigma_t.square() * torch.expm1(log_snr_t - log_snr_s)

    @final
    def posterior(self, x_t: Tensor, x0: Tensor, t: Time, s: Time) -> Gaussian:
        """Return q(x_s | x_t, x_0) for any s < t, also s = −1 (Ho et al. 2020, eqs. 6 and 7, on any path).

        With ρ = SNR_t/SNR_s the mean is  α_s (1 − ρ) x_0 + ρ (α_s/α_t) x_t  and the variance  σ_s² (1 − ρ).

        Args:
            x_t: Noisy data, (B, …).
            x0: Clean data, the shape of x_t.
            t: The time of x_t: one, or one per item (B,).
            s: The earlier time, likewise.

        Returns:
            The mean in the type of x_t; the variance 0-d or (B, 1, …), float32 at least.
        """
        (_, sigma_t, log_snr_t), (alpha_s, sigma_s, log_snr_s) = self._both(t, s)
        kept = -torch.expm1(log_snr_t - log_snr_s)
        # ρ α_s/α_t = √ρ σ_s/σ_t, which also holds where α_t = 0
        of_x_t = (0.5 * (log_snr_t - log_snr_s)).exp() * sigma_s / sigma_t
        mean = weighted((of_x_t, x_t), (alpha_s * kept, x0))
        return Gaussian(mean, per_item(sigma_s.square() * kept, x_t))

    def _at(self, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """Return (α, σ, log-SNR) at t."""
        if not isinstance(t, Tensor) or (t.dim() == 0 and t.device.type == "cpu"):
            return self._at_number(float(t))
        t = t.to(torch.float64) if t.is_floating_point() else t
        self._check(t)
        return self._knots(t.device).at(t)

    def _at_number(self, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return (α, σ, log-SNR) at one time, 0-d on the CPU; kept, as samplers ask for the same few again."""
        cache: dict[float, tuple[Tensor, Tensor, Tensor]] = self.__dict__.setdefault("_levels_by_time", {})
        if t not in cache:
            with torch.inference_mode(False):
                whole = t.is_integer()
                time = torch.tensor(int(t) if whole else t, dtype=torch.int64 if whole else torch.float64, device="cpu")
                self._check(time)
                if len(cache) >= _KEPT:
                    cache.clear()
                cache[t] = self._knots(time.device).at(time)
        alpha, sigma, log_snr = cache[t]
        return alpha.clone(), sigma.clone(), log_snr.clone()

    def _both(self, t: Time, s: Time) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Return (α, σ, log-SNR) at t and at s, on one device, after checking that s < t."""
        if isinstance(t, Tensor) and not isinstance(s, Tensor):
            s = torch.full_like(t, s, dtype=torch.float64 if isinstance(s, float) else t.dtype)
        elif isinstance(s, Tensor) and not isinstance(t, Tensor):
            t = torch.full_like(s, t, dtype=torch.float64 if isinstance(t, float) else s.dtype)
        seen = [time for time in (t, s) if not isinstance(time, Tensor) or time.device.type == "cpu"]
        if len(seen) == 2 and not bool(torch.as_tensor(s < t).all()):
            raise ScheduleError("a transition goes from less noise to more", expected="s < t", got="s ≥ t")
        return self._at(t), self._at(s)

    @staticmethod
    def _real(t: Time) -> Tensor:
        return t.to(torch.float64) if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device="cpu")

    def _check(self, t: Tensor) -> None:
        if t.device.type != "cpu" or not t.numel():
            return
        low, high = torch.aminmax(t)
        if not (bool(low >= -1) and bool(high <= self.steps - 1)):
            raise ScheduleError(
                "a time lies outside the schedule",
                where=type(self).__name__,
                expected=f"-1 … {self.steps - 1}",
                got=f"{low.item():g} … {high.item():g}" if t.numel() > 1 else f"{low.item():g}",
            )

    def _knots(self, device: torch.device) -> Knots:
        """Return the table on a device; computed and validated once, kept per device."""
        cache: dict[torch.device, Knots] = self.__dict__.setdefault("_knots_by_device", {})
        if device not in cache:
            # neither an inference-mode caller nor a meta-device block may leave its mark on what is kept
            with torch.inference_mode(False), torch.device("cpu"), torch.no_grad():
                cpu = torch.device("cpu")
                if cpu not in cache:
                    cache[cpu] = Knots.of(*self._validated())
                cache[device] = cache[cpu].to(device)
        return cache[device]

    def _validated(self) -> tuple[Tensor, Tensor]:
        """Return the table, or raise ScheduleError naming what is wrong and where."""
        alpha, sigma = self.table()
        for name, column in (("α", alpha), ("σ", sigma)):
            self._demand(column.dtype == torch.float64, f"{name} is not float64", "float64", str(column.dtype))
            shape, wanted = tuple(column.shape), (self.steps,)
            self._demand(shape == wanted and self.steps > 0, f"{name} has the wrong shape", f"{wanted}", f"{shape}")
            self._demand_all(torch.isfinite(column), f"{name} is not finite", "a finite number", column)
        self._demand_all(alpha >= 0, "α is negative", "α ≥ 0", alpha)
        self._demand_all(sigma > 0, "σ is not positive", "σ > 0", sigma)
        log_snr = 2 * (alpha.log() - sigma.log())
        self._demand_all(log_snr.diff() < 0, "log-SNR does not fall", "less than at the time before", log_snr[1:], 1)
        return alpha.detach().cpu(), sigma.detach().cpu()

    def _demand_all(self, good: Tensor, what: str, expected: str, got: Tensor, offset: int = 0) -> None:
        if not bool(good.all()):
            first = int((~good).nonzero()[0])
            self._demand(False, f"{what} at t = {first + offset}", expected, f"{float(got[first]):.17g}")

    def _demand(self, good: bool, what: str, expected: str, got: str) -> None:
        if not good:
            remedy = "correct the parameters of the schedule, or its table()"
            raise ScheduleError(what, where=type(self).__name__, expected=expected, got=got, remedy=remedy)
