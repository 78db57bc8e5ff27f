"""Normal distributions as the variational bound needs them: their divergence, and the likelihood of pixels.

All in nats and element by element; means and log-variances are broadcast to the data.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_FLOOR = 1e-12
_LN_TAU = math.log(2 * math.pi)


def normal_kl(mean_1: Tensor, logvar_1: Tensor, mean_2: Tensor, logvar_2: Tensor) -> Tensor:
    """Return KL(N(m_1, v_1) ‖ N(m_2, v_2)) per element.

    It is ½(−1 + ln v_2 − ln v_1 + v_1/v_2 + (m_1 − m_2)²/v_2).
    """
    return shift_kl(mean_1 - mean_2, logvar_1, logvar_2)


def shift_kl(shift: Tensor, logvar_1: Tensor, logvar_2: Tensor) -> Tensor:
    """Return the divergence of two normals whose means lie `shift` apart, per element; see `normal_kl`."""
    gap = logvar_1 - logvar_2
    return 0.5 * (torch.expm1(gap) - gap + shift.square() * torch.exp(-logvar_2))


def log_density(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Return ln N(x; mean, exp(logvar)) per element."""
    return -0.5 * (_LN_TAU + logvar + (x - mean).square() * torch.exp(-logvar))


@dataclass(frozen=True)
class Bins:
    """The values that data can have: `count` of them, evenly spaced from `low` to `high`."""

    low: float = -1.0
    high: float = 1.0
    count: int = 256

    @property
    def half(self) -> float:
        """Half the distance between neighbours: 1/255 for 256 values in [−1, 1]."""
        return (self.high - self.low) / (self.count - 1) / 2


def discretised_log_likelihood(
    x: Tensor, mean: Tensor, logvar: Tensor, bins: Bins, *, approximate: bool = False
) -> Tensor:
    """Return ln p(x) of a normal cut into bins, per element (Ho et al. 2020, eq. 13).

    p(x) = Φ((x + h − μ)/σ) − Φ((x − h − μ)/σ), without the upper edge at the largest value and without the
    lower edge at the smallest, so that the bins' probabilities add to 1; at least 1e-12.

    Args:
        x: Data on the bins' grid, any float type.
        mean: μ.
        logvar: ln σ².
        bins: The grid.
        approximate: Take Φ(z) ≈ ½(1 + tanh(√(2/π)(z + 0.044715 z³))), as the papers' code does; else exactly.
    """
    centred, half, scale = x - mean, bins.half, torch.exp(-0.5 * logvar)

    def cdf(distance: Tensor) -> Tensor:
        z = distance * scale
        if approximate:
            return torch.sigmoid(2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z.pow(3)))
        return 0.5 * torch.erfc(-z * math.sqrt(0.5))

    # Folded to the lower tail, where a difference of small numbers keeps its digits.
    folded = -centred.abs()
    p = cdf(folded + half) - cdf(folded - half)
    p = torch.where(x > bins.high - half, cdf(half - centred), p)
    p = torch.where(x < bins.low + half, cdf(centred + half), p)
    return p.clamp_min(_FLOOR).log()
