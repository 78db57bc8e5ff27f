"""Paths: the families to which a table (α, σ) can belong, and how each goes on between the table's points.

Every point of the half-plane is a direction, fixed by log-SNR = 2 ln(α/σ) or by the angle φ = atan2(σ, α),
and a radius, fixed by the family: variance-preserving α² + σ² = 1, variance-exploding α = 1, rectified flow
α + σ = 1. For any other table the radius follows from ln α, taken linear in time.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Path = Literal["vp", "ve", "flow", "other"]

_TOLERANCE = 1e-6


def detect(alpha: Tensor, sigma: Tensor) -> Path:
    """Return the family of a table: the first whose law holds at every point to 1e-6."""
    laws: tuple[tuple[Path, Tensor], ...] = (
        ("vp", alpha.square() + sigma.square() - 1),
        ("ve", alpha - 1),
        ("flow", alpha + sigma - 1),
    )
    return next((path for path, excess in laws if bool(excess.abs().max() < _TOLERANCE)), "other")


def from_beta(beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variance-preserving table (α, σ) of per-step variances: α_t² = Π_{s≤t} (1 − β_s).

    Ho et al. 2020, eq. 4. Summed as logarithms, so σ keeps all its digits where it is small.

    Args:
        beta: (T,) float64 in (0, 1); the last may be 1.
    """
    log_alpha_bar = torch.log1p(-beta).cumsum(0)
    return (0.5 * log_alpha_bar).exp(), (-torch.expm1(log_alpha_bar)).sqrt()


def from_alpha_bar(alpha_bar: Tensor, max_beta: float) -> tuple[Tensor, Tensor]:
    """Return the variance-preserving table whose α² follows a curve, each β limited to `max_beta`.

    Nichol & Dhariwal 2021, eq. 17: β_i = min(1 − ᾱ(u_{i+1})/ᾱ(u_i), max_beta).

    Args:
        alpha_bar: (T + 1,) float64, the curve at u = 0, 1/T … 1; only ratios of neighbours count.
        max_beta: In (0, 1].
    """
    return from_beta((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))


def from_log_snr(log_snr: Tensor, path: Literal["vp", "ve", "flow"]) -> tuple[Tensor, Tensor]:
    """Return (α, σ) of log-SNR values on a path, any shape, float64."""
    cos, sin = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    radius = _radius(path, cos, sin)
    return radius * cos, radius * sin


@dataclass(frozen=True)
class Knots:
    """A table with the clean end put before it: times −1, 0 … T−1, all (T + 1,) float64 on one device.

    Attributes:
        path: The table's family.
        alpha: α; 1 at the clean end.
        sigma: σ; 0 at the clean end.
        log_snr: 2 ln(α/σ); +∞ at the clean end, −∞ at the last point of a table with zero terminal SNR.
        noise_angle: atan2(σ, α), 0 at the clean end.
        data_angle: atan2(α, σ), 0 at zero SNR. Both angles are kept so that the smaller of α, σ has all its
            digits.
    """

    path: Path
    alpha: Tensor
    sigma: Tensor
    log_snr: Tensor
    noise_angle: Tensor
    data_angle: Tensor

    @classmethod
    def of(cls, alpha: Tensor, sigma: Tensor) -> "Knots":
        """Return the knots of a table (T,) on the CPU."""
        path = detect(alpha, sigma)
        alpha = torch.cat([alpha.new_ones(1), alpha])
        sigma = torch.cat([sigma.new_zeros(1), sigma])
        log_snr = 2 * (alpha.log() - sigma.log())
        return cls(path, alpha, sigma, log_snr, torch.atan2(sigma, alpha), torch.atan2(alpha, sigma))

    def to(self, device: torch.device) -> "Knots":
        """Return the knots on a device."""
        tensors = (self.alpha, self.sigma, self.log_snr, self.noise_angle, self.data_angle)
        return Knots(self.path, *(tensor.to(device) for tensor in tensors))

    def at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (α, σ, log-SNR) at times of any shape, integer or float64, clamped to [−1, T−1]."""
        if not t.is_floating_point():
            index = (t.long() + 1).clamp(0, self.alpha.shape[0] - 1)
            return self.alpha[index], self.sigma[index], self.log_snr[index]
        place = (t + 1).clamp(0, self.alpha.shape[0] - 1)
        left = place.floor().long().clamp(max=self.alpha.shape[0] - 2)
        weight = place - left
        between = self._between(left, left + 1, weight)
        found = []
        for table, inner in zip((self.alpha, self.sigma, self.log_snr), between, strict=True):
            inner = torch.where(weight == 0, table[left], inner)
            found.append(torch.where(weight == 1, table[left + 1], inner))
        return found[0], found[1], found[2]

    def _between(self, left: Tensor, right: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (α, σ, log-SNR) between two knots: linear in log-SNR, or in angle at an infinite end."""
        log_snr = torch.lerp(self.log_snr[left], self.log_snr[right], weight)
        turning = self._turning(left)
        cos = torch.lerp(self.data_angle[left], self.data_angle[right], weight).sin()
        sin = torch.lerp(self.noise_angle[left], self.noise_angle[right], weight).sin()
        log_snr = torch.where(turning, 2 * (cos.log() - sin.log()), log_snr)
        cos = torch.where(turning, cos, torch.sigmoid(log_snr).sqrt())
        sin = torch.where(turning, sin, torch.sigmoid(-log_snr).sqrt())
        if self.path == "other":
            size = torch.hypot(self.alpha, self.sigma)
            log_alpha = torch.lerp(self.alpha[left].log(), self.alpha[right].log(), weight)
            radius = torch.where(turning, torch.lerp(size[left], size[right], weight), log_alpha.exp() / cos)
        else:
            radius = _radius(self.path, cos, sin)
        return radius * cos, radius * sin, log_snr

    def time(self, log_snr: Tensor) -> Tensor:
        """Return the times of log-SNR values, any shape: the inverse of `at`, clamped to [−1, T−1]."""
        falling = -self.log_snr
        left = torch.searchsorted(falling, -log_snr.contiguous(), right=True) - 1
        left = left.clamp(0, self.alpha.shape[0] - 2)
        start, stop = self.log_snr[left], self.log_snr[left + 1]
        weight = (start - log_snr) / (start - stop)
        from_clean = torch.exp(-0.5 * log_snr).atan() / self.noise_angle[left + 1]
        to_zero = 1 - torch.exp(0.5 * log_snr).atan() / self.data_angle[left]
        weight = torch.where(torch.isinf(stop), to_zero, weight)
        weight = torch.where(torch.isinf(start), from_clean, weight)
        return left - 1 + weight.clamp(0, 1)

    def _turning(self, left: Tensor) -> Tensor:
        return torch.isinf(self.log_snr[left]) | torch.isinf(self.log_snr[left + 1])


def _radius(path: Path, cos: Tensor, sin: Tensor) -> Tensor:
    """Return the radius at direction (cos, sin): 1 for vp, 1/cos for ve, 1/(cos + sin) for flow."""
    if path == "ve":
        return 1 / cos
    return 1 / (cos + sin) if path == "flow" else torch.ones_like(cos)
