"""Oracles: models whose every answer is known in closed form, to measure samplers against.

For data drawn from a point, a Gaussian or a mixture of Gaussians the posterior mean E[x_0 | x_t] and the
score are exact, and so is the probability flow: the deterministic map from x_t to x_s along which every
marginal is carried into the next (Song et al. 2021). An ODE sampler must converge to `flow(x_t, t)`; a
stochastic one must keep the moments.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from diffloom.arithmetic import per_item
from diffloom.prediction import Denoised
from diffloom.schedule import Schedule, Time

__all__ = ["DiagonalGaussian", "FullGaussian", "Mixture", "Oracle", "PointMass"]


class Oracle(ABC):
    """A model `oracle(x_t, t) -> Denoised` that answers exactly, for a known distribution of data.

    Attributes:
        schedule: The path on which x_t lies.
    """

    schedule: Schedule

    @abstractmethod
    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Return the posterior means of x_0 and of the noise for x_t (B, …) at t, 0-d or (B,)."""

    @abstractmethod
    def flow(self, x_t: Tensor, t: Time, s: Time = -1) -> Tensor:
        """Return where the exact probability flow leads x_t (B, …) from time t to time s, up or down."""

    def score(self, x_t: Tensor, t: Time) -> Tensor:
        """Return ∇ ln q_t(x_t), the shape of x_t."""
        t = torch.as_tensor(t)
        return self(x_t, t).score(self.schedule.sigma(t))

    def _levels(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        return per_item(self.schedule.alpha(t), x), per_item(self.schedule.sigma(t), x)


class DiagonalGaussian(Oracle):
    """Independent numbers, each from N(mean, std²).

    Args:
        schedule: The path.
        mean: A number, or a tensor broadcastable to items.
        std: Likewise, at least 0; 0 is a point mass.
    """

    def __init__(self, schedule: Schedule, mean: float | Tensor = 0.0, std: float | Tensor = 1.0) -> None:
        self.schedule = schedule
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.variance = torch.as_tensor(std, dtype=torch.float64).square()

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Return m + s² α (x_t − α m)/(α² s² + σ²) and σ (x_t − α m)/(α² s² + σ²)."""
        alpha, sigma = self._levels(x_t, t)
        mean, variance = self.mean.to(x_t.device), self.variance.to(x_t.device)
        residual = (x_t - alpha * mean) / (alpha**2 * variance + sigma**2)
        x0 = mean + variance * alpha * residual
        return Denoised(x0.to(x_t.dtype), (sigma * residual).to(x_t.dtype))

    def flow(self, x_t: Tensor, t: Time, s: Time = -1) -> Tensor:
        """Return α_s m + (x_t − α_t m) √((α_s² s² + σ_s²)/(α_t² s² + σ_t²))."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self._levels(x_t, t), self._levels(x_t, s)
        mean, variance = self.mean.to(x_t.device), self.variance.to(x_t.device)
        ratio = (alpha_s**2 * variance + sigma_s**2) / (alpha_t**2 * variance + sigma_t**2)
        return (alpha_s * mean + (x_t - alpha_t * mean) * ratio**0.5).to(x_t.dtype)


class PointMass(DiagonalGaussian):
    """Data that are always the same: every consistent sampler finds them exactly, with any number of steps.

    Args:
        schedule: The path.
        point: The datum, broadcastable to items.
    """

    def __init__(self, schedule: Schedule, point: float | Tensor) -> None:
        super().__init__(schedule, point, 0.0)


class FullGaussian(Oracle):
    """Items from N(mean, covariance), all numbers of an item correlated.

    Args:
        schedule: The path.
        mean: (D,), D the numbers of an item.
        covariance: (D, D), symmetric, positive semi-definite.
    """

    def __init__(self, schedule: Schedule, mean: Tensor, covariance: Tensor) -> None:
        self.schedule = schedule
        self.mean = mean
        variances, self.axes = torch.linalg.eigh(covariance)
        self._independent = DiagonalGaussian(schedule, mean @ self.axes, variances.clamp(min=0).sqrt())

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Return the diagonal answer along the principal axes, turned back."""
        said = self._independent(self._turned(x_t), t)
        return Denoised(self._back(said.x0, x_t), self._back(said.eps, x_t))

    def flow(self, x_t: Tensor, t: Time, s: Time = -1) -> Tensor:
        """Return the diagonal flow along the principal axes, turned back."""
        return self._back(self._independent.flow(self._turned(x_t), t, s), x_t)

    def _turned(self, x: Tensor) -> Tensor:
        turned: Tensor = x.flatten(1) @ self.axes.to(x)
        return turned

    def _back(self, y: Tensor, like: Tensor) -> Tensor:
        back: Tensor = y @ self.axes.T.to(y)
        return back.view_as(like)


class Mixture(Oracle):
    """Independent numbers, each from Σ_k w_k N(mean_k, std_k²).

    In one dimension a flow keeps order, so it keeps the cumulative distribution: x_s = F_s⁻¹(F_t(x_t)),
    found by bisection to float64.

    Args:
        schedule: The path.
        means: Of the components.
        stds: Of the components, positive.
        weights: Of the components, positive; equal by default.
    """

    def __init__(
        self,
        schedule: Schedule,
        means: Sequence[float],
        stds: Sequence[float],
        weights: Sequence[float] | None = None,
    ) -> None:
        self.schedule = schedule
        self.means = torch.tensor(means, dtype=torch.float64)
        self.variances = torch.tensor(stds, dtype=torch.float64).square()
        share = torch.tensor(weights or [1.0] * len(means), dtype=torch.float64)
        self.log_weights = (share / share.sum()).log()

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Return the components' answers, weighted by how likely each is to have given x_t."""
        alpha, sigma = (level.to(torch.float64)[..., None] for level in self._levels(x_t, t))
        means, variances = self.means.to(x_t.device), self.variances.to(x_t.device)
        total = alpha**2 * variances + sigma**2
        residual = (x_t.to(torch.float64)[..., None] - alpha * means) / total
        log_likely = self.log_weights.to(x_t.device) - 0.5 * residual**2 * total - 0.5 * total.log()
        likely = torch.softmax(log_likely, -1)
        x0 = (likely * (means + variances * alpha * residual)).sum(-1)
        return Denoised(x0.to(x_t.dtype), (likely * sigma * residual).sum(-1).to(x_t.dtype))

    def flow(self, x_t: Tensor, t: Time, s: Time = -1) -> Tensor:
        """Return F_s⁻¹(F_t(x_t)); tails are followed through whichever of F and 1 − F is small."""
        x = x_t.to(torch.float64)
        upper = x > self._median(x, t)
        wanted = self._log_tail(x, t, upper)
        low, high = self._bounds(x, t, s)
        for _ in range(200):
            middle = (low + high) / 2
            below = (self._log_tail(middle, s, upper) < wanted) ^ upper
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2).to(x_t.dtype)

    def _spread(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations of q_t's components, broadcastable to x with a last axis."""
        alpha, sigma = (level.to(torch.float64)[..., None] for level in self._levels(x, t))
        means, variances = self.means.to(x.device), self.variances.to(x.device)
        return alpha * means, (alpha**2 * variances + sigma**2).sqrt()

    def _log_tail(self, x: Tensor, t: Time, upper: Tensor) -> Tensor:
        """Return ln(1 − F_t(x)) where `upper`, else ln F_t(x)."""
        means, stds = self._spread(x, t)
        z = (x[..., None] - means) / stds
        z = torch.where(upper[..., None], -z, z)
        return torch.logsumexp(self.log_weights.to(x.device) + torch.special.log_ndtr(z), -1)

    def _median(self, x: Tensor, t: Time) -> Tensor:
        """Return the median of q_t, in the shape of x."""
        means, stds = self._spread(x, t)
        low = (means - 40 * stds).amin(-1).expand_as(x).clone()
        high = (means + 40 * stds).amax(-1).expand_as(x).clone()
        for _ in range(80):
            middle = (low + high) / 2
            below = self._log_tail(middle, t, torch.zeros_like(x, dtype=torch.bool)) < math.log(0.5)
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def _bounds(self, x: Tensor, t: Time, s: Time) -> tuple[Tensor, Tensor]:
        """Return numbers between which the image of x surely lies: as far out as x is, and more."""
        means, stds = self._spread(x, t)
        out = ((x[..., None] - means) / stds).abs().amax(-1, keepdim=True) + 10
        means, stds = self._spread(x, s)
        return (means - out * stds).amin(-1), (means + out * stds).amax(-1)
