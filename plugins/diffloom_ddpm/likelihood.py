"""Likelihood: the variational bound on −log p(x_0), term by term, in bits per dimension.

    −ln p(x_0) ≤ KL(q(x_T|x_0) ‖ p(x_T)) + Σ_{t>0} KL(q(x_s|x_t,x_0) ‖ p(x_s|x_t)) − ln p(x_0|x_0-level)

(Ho et al. 2020, eq. 5; the sign as it must be.) The reverse steps p(x_s|x_t) are normal, with the
posterior's mean for the estimated x_0; a chain may skip levels, and the bound is then that of the shorter
chain. Data must be pixels: only values on a grid have a probability.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffloom.arithmetic import per_item
from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom.grid import spaced
from diffloom.noise import Noise
from diffloom.prediction import Denoised
from diffloom.schedule import Schedule, Time
from diffloom.space import Space
from diffloom.system import System
from diffloom_ddpm.gaussian import Bins, discretised_log_likelihood, log_density, shift_kl

Variance = Literal["fixed-small", "fixed-large", "learned-range"]
_LN_2 = math.log(2.0)


def bins_of(space: Space, count: int = 256) -> Bins | None:
    """Return the values that data of a space can have; `None` where they are unbounded."""
    if space.low is None or space.high is None:
        return None
    return Bins(space.low, space.high, count)


@dataclass(frozen=True, eq=False)
class Reverse:
    """Steps t → s of the reverse process beside the true posterior; all float64, one per item (B,) or 0-d.

    Attributes:
        pull: The weight of x_0 in the posterior's mean: two means lie `pull` · Δx_0 apart.
        small: ln of the posterior's variance β̃; at the step to clean data, where that is 0, of the step
            before.
        large: ln of the transition's variance β.
        last: Whether the step leads to clean data.
    """

    pull: Tensor
    small: Tensor
    large: Tensor
    last: Tensor

    @classmethod
    def of(cls, schedule: Schedule, t: Tensor, s: Tensor, second: tuple[Time, Time] = (1, 0)) -> "Reverse":
        """Return the steps from times t to times s.

        Args:
            schedule: The path.
            t: Where they start, (B,) or 0-d.
            s: Where they lead, the shape of t; −1 is clean.
            second: Start and end of the step before the last, whose variance the last one borrows.
        """
        last = s < 0
        start, end = (torch.where(last, borrowed, own) for borrowed, own in zip(second, (t, s), strict=True))
        one = torch.ones(t.shape, dtype=torch.float64, device=t.device)
        small = schedule.posterior(one, one, start, end).variance.log()
        large = schedule.transition(t, s)[1].log()
        return cls(schedule.posterior(0 * one, one, t, s).mean, small, large, last)

    def log_variance(self, variance: Variance, spread: Tensor | None, like: Tensor) -> Tensor:
        """Return ln σ² of the reverse steps, broadcastable to `like` (B, …).

        `fixed-small` is β̃, `fixed-large` β (but β̃'s at the step to clean data), `learned-range` lies
        between them (Nichol & Dhariwal 2021, eq. 15).

        Raises:
            IncompatibleParts: If the variance is learned and the network says nothing about it.
        """
        small = per_item(self.small, like)
        if variance == "fixed-small":
            return small
        if variance == "fixed-large":
            return per_item(torch.where(self.last, self.small, self.large), like)
        if spread is None:
            raise IncompatibleParts(
                "the likelihood asks for a learned variance, and the denoiser gives none",
                where="task.variance",
                expected="an output with twice the data's channels",
                got="an output with the data's channels",
                remedy="use variance: fixed-small, or a denoiser that learns its variance",
            )
        return small + (spread + 1) / 2 * (per_item(self.large, like) - small)

    def bits(self, x0: Tensor, said: Denoised, variance: Variance, bins: Bins | None) -> Tensor:
        """Return each item's term of the bound, (B,), in bits per dimension: a divergence; −log₂ p at last.

        Args:
            x0: Clean data, (B, C, …).
            said: What the model says at the steps' starts.
            variance: Of the reverse steps.
            bins: The values that data can have; `None` for a density, where they are unbounded.
        """
        logvar = self.log_variance(variance, said.spread, x0)
        if self.last.dim() == 0 and not self.last:  # one level for all: only what counts is computed
            return self._divergence(x0, said, logvar)
        nll = self._surprise(x0, said, logvar, bins)
        return nll if self.last.dim() == 0 else torch.where(self.last, nll, self._divergence(x0, said, logvar))

    def _divergence(self, x0: Tensor, said: Denoised, logvar: Tensor) -> Tensor:
        shift = per_item(self.pull, x0) * (x0 - said.x0)
        return _mean(shift_kl(shift, per_item(self.small, x0), logvar)) / _LN_2

    @staticmethod
    def _surprise(x0: Tensor, said: Denoised, logvar: Tensor, bins: Bins | None) -> Tensor:
        if bins is None:
            return -_mean(log_density(x0, said.x0, logvar)) / _LN_2
        return -_mean(discretised_log_likelihood(x0, said.x0, logvar, bins)) / _LN_2


def prior_bits(schedule: Schedule, x0: Tensor) -> Tensor:
    """Return KL(q(x_T|x_0) ‖ N(0, (α_T² + σ_T²) I)) in bits per dimension, (B,) for x_0 (B, …).

    The prior's variance is 1 on variance-preserving paths (Ho et al. 2020, L_T); elsewhere it is that of
    sampling's start.
    """
    alpha, sigma = schedule.alpha(schedule.steps - 1), schedule.sigma(schedule.steps - 1)
    variance = alpha.square() + sigma.square()
    mean = x0 * float(alpha)
    zero = torch.zeros_like(mean)
    kl = shift_kl(mean, zero + 2 * float(sigma.log()), zero + float(variance.log()))
    return _mean(kl) / _LN_2


@dataclass(frozen=True, eq=False)
class Bound:
    """The variational bound for a batch, term by term, in bits per dimension.

    Attributes:
        times: (K,) int64, ascending: the levels of the chain.
        prior: (B,) L_T.
        terms: (B, K): column 0 is the reconstruction −log₂ p(x_0|x), the others are divergences.
        squared_error: (B, K): mean over dimensions of (x_0 − x̂_0)² at each level.
    """

    times: Tensor
    prior: Tensor
    terms: Tensor
    squared_error: Tensor

    @property
    def reconstruction(self) -> Tensor:
        """The term of the step to clean data, (B,)."""
        return self.terms[:, 0]

    @property
    def kl(self) -> Tensor:
        """The sum of all other steps' divergences, (B,)."""
        return self.terms[:, 1:].sum(1)

    @property
    def total(self) -> Tensor:
        """The bound on the negative log-likelihood, (B,)."""
        return self.prior + self.terms.sum(1)


@torch.no_grad()
def bound(
    system: System,
    batch: Batch,
    noise: Noise,
    *,
    variance: Variance = "fixed-small",
    steps: int | None = None,
    bins: int = 256,
    clip: bool = True,
) -> Bound:
    """Return the variational bound on a batch, from one draw of the noise at each level.

    The network is asked once per level for the whole batch, with all conditions and without guidance.

    Args:
        system: A pixel system, in evaluation mode.
        batch: With `image` (B, C, H, W), on the grid of `bins` values.
        noise: One stream per item.
        variance: Of the reverse steps.
        steps: Levels of the chain, 2 … T, evenly spread; all T by default.
        bins: How many values a pixel can have.
        clip: Whether estimates of x_0 are limited to the data's range.

    Raises:
        IncompatibleParts: If the data are unbounded, or the number of steps does not fit.
    """
    grid = _pixels(system.space, bins)
    schedule, kind = system.schedule, system.plan.prediction
    times = _levels(schedule, steps)
    x0, codes = system.encode(batch["image"], noise), system.codes(batch)
    terms, errors = [], []
    for t, s in zip(times, (-1, *times), strict=False):
        time = torch.tensor(float(t), dtype=torch.float64, device="cpu")
        alpha, sigma = schedule.alpha(time), schedule.sigma(time)
        x_t = schedule.diffuse(x0, time, noise.normal(x0, "bound", t))
        said = Denoised.from_output(kind, system.output(x_t, time, codes), x_t, alpha, sigma)
        estimate = said.x0.clamp(grid.low, grid.high) if clip else said.x0
        step = Reverse.of(schedule, time, torch.full_like(time, s), (times[1], times[0]))
        terms.append(step.bits(x0, Denoised(estimate, said.eps, said.spread), variance, grid))
        errors.append(_mean((x0 - estimate).square()))
    prior = prior_bits(schedule, x0)
    return Bound(torch.tensor(times), prior, torch.stack(terms, 1), torch.stack(errors, 1))


@dataclass(frozen=True, eq=False)
class RateDistortion:
    """What progressive coding costs and gives, a mean over items; in the order of transmission.

    Attributes:
        times: (K,) the level t whose x_t the receiver has.
        rate: (K,) bits per dimension sent until then: L_T and the divergences of the steps above t.
        distortion: (K,) root mean squared error of the receiver's x̂_0, on the scale 0 … 255.
    """

    times: Tensor
    rate: Tensor
    distortion: Tensor


def rate_distortion(found: Bound, bins: Bins | None = None) -> RateDistortion:
    """Return the curve of progressive coding (Ho et al. 2020, section 4.3).

    Args:
        found: The bound for as many items as there are.
        bins: The data's values; 256 in [−1, 1] by default.
    """
    grid = bins or Bins()
    steps = found.terms.mean(0).flip(0)
    sent = torch.cat([found.prior.mean().reshape(1), steps[:-1]]).cumsum(0)
    distortion = found.squared_error.mean(0).sqrt().flip(0) * (255 / (grid.high - grid.low))
    return RateDistortion(found.times.flip(0), sent, distortion)


def _levels(schedule: Schedule, steps: int | None) -> list[int]:
    """Return the levels of a chain, ascending from 0 to T−1: K reals evenly spread, rounded."""
    if steps is not None and not 2 <= steps <= schedule.steps:
        raise IncompatibleParts(
            "the bound cannot be taken over so many steps",
            where="steps",
            expected=f"2 … {schedule.steps}",
            got=str(steps),
            remedy="use a number of steps that the schedule has",
        )
    return [round(float(t)) for t in reversed(spaced(schedule, steps, "linspace").tolist())]


def _pixels(space: Space, count: int) -> Bins:
    bins = bins_of(space, count)
    if bins is None:
        raise IncompatibleParts(
            "only data on a grid of values have a likelihood, and latents are not",
            where="task",
            expected="a system that diffuses pixels",
            got="a space without limits",
            remedy="use the identity autoencoder",
        )
    return bins


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)
