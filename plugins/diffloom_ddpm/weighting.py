"""Weighting: how much each noise level counts in the training loss.

A weight is a function of SNR = α²/σ² on the squared error of ε (or, the same thing, of x_0, v or the flow:
at fixed x_t their errors are proportional). Law: whatever a network predicts, the weighted loss of the same
clean estimate is the same. Only `uniform` is not such a function: it leaves the error of the network's own
output as it is.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from diffloom.errors import IncompatibleParts
from diffloom.prediction import Prediction

Weight = Literal["uniform", "min-snr", "p2", "truncated-snr", "snr"]

_GAMMA = {"min-snr": 5.0, "p2": 1.0}


def error_ratio(kind: Prediction, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return ‖x̂_0 − x_0‖²/‖ŷ − y‖² for the output y of a kind at fixed x_t, the shape of α.

    With x_t = α x_0 + σ ε the errors are Δε = −(α/σ) Δx_0, Δv = −((α² + σ²)/σ) Δx_0 and Δflow = −((α +
    σ)/σ) Δx_0.

    Args:
        kind: What the network's output means.
        alpha: α ≥ 0, float64; for `eps` more than 0.
        sigma: σ > 0, float64.
    """
    if kind == "x0":
        return alpha.new_ones(alpha.shape)
    if kind == "eps":
        return (sigma / alpha).square()
    size = alpha.square() + sigma.square() if kind == "v" else alpha + sigma
    return (sigma / size).square()


@dataclass(frozen=True)
class Weighting:
    """A weight by name.

    `uniform`: 1 on the error of the network's own output (Ho et al. 2020, eq. 14; for v that is SNR + 1 on
        x_0,
    Salimans & Ho 2022). The others, as weights on the squared error of ε: `snr` 1 (SNR on x_0);
    `truncated-snr` max(SNR, 1)/SNR (Salimans & Ho 2022, section 4); `min-snr` min(SNR, γ)/SNR (Hang et al.
    2023, eq. 8); `p2` 1/(k + SNR)^γ (Choi et al. 2022, eq. 8).

    Args:
        kind: Which one.
        gamma: γ of `min-snr` (5 by default) or `p2` (1 by default).
        k: k of `p2`.

    Raises:
        IncompatibleParts: If γ is given to a weight that has none.
    """

    kind: Weight = "uniform"
    gamma: float | None = None
    k: float = 1.0

    def __post_init__(self) -> None:
        if self.gamma is not None and self.kind not in _GAMMA:
            raise IncompatibleParts(
                "this weight has no γ",
                where="task.gamma",
                expected=f"weight: {' or '.join(_GAMMA)}",
                got=f"weight: {self.kind}",
                remedy="leave gamma out, or choose another weight",
            )

    def of_output(self, kind: Prediction, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the weight on the squared error of a network's output, float64, the shape of α.

        Args:
            kind: What the output means.
            alpha: α ≥ 0, float64; for `eps` more than 0.
            sigma: σ > 0, float64.
        """
        if self.kind == "uniform":
            return alpha.new_ones(alpha.shape)
        return self._of_x0((alpha / sigma).square()) * error_ratio(kind, alpha, sigma)

    def _of_x0(self, snr: Tensor) -> Tensor:
        """Return the weight on the squared error of x_0, which stays finite where SNR = 0."""
        if self.kind == "min-snr":
            return snr.clamp(max=self._gamma())
        if self.kind == "truncated-snr":
            return snr.clamp(min=1.0)
        if self.kind == "p2":
            return snr / (self.k + snr) ** self._gamma()
        return snr

    def _gamma(self) -> float:
        return _GAMMA.get(self.kind, 1.0) if self.gamma is None else self.gamma
