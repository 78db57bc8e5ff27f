"""Prediction: what the output of a denoiser means, and the one place where it is converted.

With x_t = α x_0 + σ ε, a network may give ε, x_0, v = α ε − σ x_0 or the flow ε − x_0. Everything
downstream speaks `Denoised(x0, eps)` only. Every formula holds for any α, σ, not for α² + σ² = 1 alone.
Throughout, α and σ are float64 tensors, 0-d or (B,), or Python floats. Where nothing of the data is left (α
= 0) all but ε stay well defined.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from diffloom.arithmetic import Coefficient, weighted
from diffloom.errors import IncompatibleParts
from diffloom.schedule import Schedule

Prediction = Literal["eps", "x0", "v", "flow"]


@dataclass(frozen=True)
class Denoised:
    """What a model says about a noisy x_t: the posterior mean of the clean data, and the noise to match.

    Attributes:
        x0: Expected clean data, the shape of x_t. Invariant: x_t = α x0 + σ eps, until x0 is clipped.
        eps: Expected noise, the shape of x_t.
        spread: For networks with learned variance, where the log-variance lies between the posterior's (−1)
            and the transition's (+1); the shape of x_t (Nichol & Dhariwal 2021, eq. 15). `None` otherwise.
    """

    x0: Tensor
    eps: Tensor
    spread: Tensor | None = None

    @classmethod
    def from_output(
        cls, kind: Prediction, output: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient
    ) -> "Denoised":
        """Return what a network's output says.

        Args:
            kind: What the output means.
            output: (B, C, …), the shape of x_t; or (B, 2C, …), the second half being the learned `spread`.
            x_t: What the network looked at, (B, C, …).
            alpha: α at the network's time.
            sigma: σ at the network's time.
        """
        mean, spread = split_variance(output, x_t)
        if kind == "eps":
            return cls.from_eps(mean, x_t, alpha, sigma, spread)
        if kind == "x0":
            return cls.from_x0(mean, x_t, alpha, sigma, spread)
        if kind == "v":  # Salimans & Ho 2022, appendix D
            size = alpha * alpha + sigma * sigma
            x0 = weighted((alpha / size, x_t), (-sigma / size, mean))
            return cls(x0, weighted((sigma / size, x_t), (alpha / size, mean)), spread)
        size = alpha + sigma
        x0 = weighted((1 / size, x_t), (-sigma / size, mean))
        return cls(x0, weighted((1 / size, x_t), (alpha / size, mean)), spread)

    @classmethod
    def from_x0(
        cls, x0: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient, spread: Tensor | None = None
    ) -> "Denoised":
        """Return what a clean estimate says: ε = (x_t − α x_0)/σ."""
        return cls(x0, weighted((1 / sigma, x_t), (-alpha / sigma, x0)), spread)

    @classmethod
    def from_eps(
        cls, eps: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient, spread: Tensor | None = None
    ) -> "Denoised":
        """Return what a noise estimate says: x_0 = (x_t − σ ε)/α, which needs α > 0."""
        return cls(weighted((1 / alpha, x_t), (-sigma / alpha, eps)), eps, spread)

    @classmethod
    def from_score(cls, score: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> "Denoised":
        """Return what the score ∇ ln q(x_t) says: ε = −σ · score (Song et al. 2021); needs α > 0."""
        return cls.from_eps(weighted((-sigma, score)), x_t, alpha, sigma)

    def score(self, sigma: Coefficient) -> Tensor:
        """Return ∇ ln q(x_t) = −ε/σ."""
        return weighted((-1 / sigma, self.eps))

    def to_output(self, kind: Prediction, alpha: Coefficient, sigma: Coefficient) -> Tensor:
        """Return the network output of this kind that would have said this, (B, C, …), without `spread`."""
        return target(kind, self.x0, self.eps, alpha, sigma)

    def clipped(
        self, limit: float, x_t: Tensor, alpha: Coefficient, sigma: Coefficient, *, rederive: bool = True
    ) -> "Denoised":
        """Return this with x0 clamped to [−limit, limit].

        Args:
            limit: The largest magnitude that data have.
            x_t: What this was said about.
            alpha: α there.
            sigma: σ there.
            rederive: Take ε anew from the clamped x0, so that x_t = α x0 + σ ε holds again; else keep the
                model's ε.
        """
        x0 = self.x0.clamp(-limit, limit)
        if rederive:
            return Denoised.from_x0(x0, x_t, alpha, sigma, self.spread)
        return replace(self, x0=x0)


def target(kind: Prediction, x0: Tensor, eps: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """Return what a network of this kind should output for x_t = α x0 + σ eps: its target in training.

    Args:
        kind: What the output means.
        x0: Clean data, (B, C, …).
        eps: The noise in x_t, the shape of x0.
        alpha: α, unused but for `v`.
        sigma: σ, unused but for `v`.
    """
    if kind == "eps":
        return eps
    if kind == "x0":
        return x0
    if kind == "v":
        return weighted((alpha, eps), (-sigma, x0))
    return weighted((1.0, eps), (-1.0, x0))


def split_variance(output: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return (mean part, spread or `None`) of an output with the channels of x_t, or with twice as many."""
    channels = x_t.shape[1] if x_t.dim() > 1 else 1
    if output.shape == x_t.shape:
        return output, None
    if x_t.dim() > 1 and output.dim() > 1 and output.shape[1] == 2 * channels:
        mean, spread = output[:, :channels], output[:, channels:]
        return mean, spread
    raise IncompatibleParts(
        "a network's output does not fit what it looked at",
        expected=f"shape {tuple(x_t.shape)}, or twice the channels for learned variance",
        got=f"shape {tuple(output.shape)}",
        remedy="check the denoiser's out_channels",
    )


def require_defined(kind: Prediction, schedule: Schedule) -> None:
    """Refuse a prediction that says nothing at the schedule's last level: noise alone is no news where α = 0.

    Raises:
        IncompatibleParts: If `kind` is `eps` and the schedule ends at zero SNR (Lin et al. 2024, section
            3.2).
    """
    if kind == "eps" and schedule.zero_terminal_snr:
        others = ", ".join(other for other in get_args(Prediction) if other != "eps")
        raise IncompatibleParts(
            "the noise says nothing about the data where the schedule ends at zero SNR",
            where="denoiser.prediction",
            expected=f"one of {others}",
            got="eps",
            remedy="use prediction: v, or a schedule with some signal left at its end",
        )
