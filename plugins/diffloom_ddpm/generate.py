"""Generate: learn to denoise images, and make new ones from noise (Ho et al. 2020; Nichol & Dhariwal 2021).

Law: the loss is a mean over items, and an item's share depends on its own data and seed alone, except where
times are drawn for the batch as a whole (antithetic, loss-aware).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.prediction import Denoised, require_defined, split_variance, target
from diffloom.schedule import Schedule
from diffloom.system import System
from diffloom.task import Loss, Objective, Task
from diffloom_ddpm.likelihood import Bound, Reverse, Variance, bins_of, bound
from diffloom_ddpm.timesteps import Spread, make
from diffloom_ddpm.weighting import Weight, Weighting


@dataclass(frozen=True, eq=False)
class Draft:
    """Clean data, noised, and what the network made of it.

    Attributes:
        x0: Clean data, (B, C, *spatial).
        eps: The noise in x_t, the shape of x0.
        x_t: Noisy data, the shape of x0.
        t: (B,).
        output: The network's output, (B, C, *spatial) or with twice the channels.
    """

    x0: Tensor
    eps: Tensor
    x_t: Tensor
    t: Tensor
    output: Tensor


class Generate(Task):
    """Denoising as an objective, sampling as an answer; pixels or latents, with any conditioners.

    Args:
        loss: `simple` is the weighted error of the network's output (Ho et al. 2020, eq. 14); `vlb` the
            variational bound in bits per dimension, T times the term of the level drawn (without the
            constant L_T); `hybrid` the simple loss plus `vlb_weight` times the bound, which then trains the
            variance alone (Nichol & Dhariwal 2021, eq. 16). In latents the bound ends in a density, which
            may be negative.
        weight: Of the simple loss; see `Weighting`.
        gamma: γ of min-snr (5 by default) or p2 (1 by default).
        k: k of p2.
        norm: Of the simple loss: squared (l2) or absolute (l1) errors. The weights are those of squared
            errors.
        timesteps: How levels are drawn: `uniform`; `antithetic`, in pairs that mirror each other;
            `loss-aware`, where the loss is large, meant for vlb; `continuous`, at real times; `cubic`,
            noisy ones more often.
        variance: Of the reverse steps in the bound; by default learned where the denoiser's output has a
            second half, else fixed-small.
        vlb_weight: λ of the hybrid loss.
        bins: How many values a pixel can have, for likelihoods.
        image: Where a batch has the images to learn.
        schedule: The path; loss-aware times remember losses at each of its levels.

    Raises:
        IncompatibleParts: If these choices exclude each other.
    """

    def __init__(
        self,
        *,
        loss: Literal["simple", "vlb", "hybrid"] = "simple",
        weight: Weight = "uniform",
        gamma: Annotated[float, Field(gt=0)] | None = None,
        k: Annotated[float, Field(gt=0)] = 1.0,
        norm: Literal["l2", "l1"] = "l2",
        timesteps: Spread = "uniform",
        variance: Variance | None = None,
        vlb_weight: Annotated[float, Field(gt=0)] = 0.001,
        bins: Annotated[int, Field(gt=1)] = 256,
        image: str = "image",
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.weighting = Weighting(weight, gamma, k)
        self.norm = norm
        self.variance = variance
        self.vlb_weight = vlb_weight
        self.bins = bins
        self.image = image
        self.needs = (image,)
        if norm != "l2" and weight != "uniform":
            raise _contradiction("norm", "l2, or weight: uniform", norm, "take one of the two")
        if loss != "simple" and timesteps == "continuous":
            remedy = "use loss: simple, or timesteps: uniform"
            raise _contradiction("timesteps", "whole levels, between which the bound is taken", timesteps, remedy)
        if timesteps == "loss-aware" and schedule is None:
            remedy = "pass schedule=…; a recipe does so by itself"
            raise _contradiction("timesteps", "a schedule, whose losses are remembered", "none", remedy)
        self.times = make(timesteps, 1 if schedule is None else schedule.steps)

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return the one objective, `denoise`, over the denoiser and the conditioners.

        Raises:
            IncompatibleParts: If the loss and the denoiser's output do not fit, or the prediction is
                undefined on the schedule.
        """
        require_defined(system.plan.prediction, system.schedule)
        self._check(system)
        parts: dict[str, nn.Module] = {"denoiser": system.denoiser}
        parts |= {f"conditioners.{name}": part for name, part in system.conditioners.items()}
        named = ((f"{role}.{name}", p) for role, part in parts.items() for name, p in part.named_parameters())
        seen: dict[int, tuple[str, nn.Parameter]] = {}
        for name, parameter in named:  # one that two parts share is trained once, under its first name
            seen.setdefault(id(parameter), (name, parameter))
        return [Objective("denoise", dict(seen.values()), partial(self._loss, system))]

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return new images, `image` (B, C, H, W) in [−1, 1], one per stream of the noise."""
        return {"image": system.autoencoder.decode(system.walk(batch, noise)).clamp(-1, 1)}

    def bits_per_dim(
        self, system: System, batch: Batch, noise: Noise, *, steps: int | None = None
    ) -> dict[str, Tensor]:
        """Return the bound on −log₂ p of images in bits per dimension, and what it is made of.

        Args:
            system: A pixel system, in evaluation mode.
            batch: With `image` (B, C, H, W).
            noise: One stream per item.
            steps: Levels of the chain; all by default.

        Returns:
            `total` = `prior` + `kl` + `reconstruction`, each (B,).
        """
        found = self.bound(system, batch, noise, steps=steps)
        return {
            "total": found.total,
            "prior": found.prior,
            "kl": found.kl,
            "reconstruction": found.reconstruction,
        }

    def bound(self, system: System, batch: Batch, noise: Noise, *, steps: int | None = None) -> Bound:
        """Return the bound level by level, with this task's variance and bins; see `likelihood.bound`."""
        variance = self.reverse_variance(system)
        return bound(system, batch, noise, variance=variance, steps=steps, bins=self.bins)

    def reverse_variance(self, system: System) -> Variance:
        """Return the variance of the reverse steps: the recipe's, else what the denoiser can do."""
        return self.variance or ("learned-range" if _second_half(system) else "fixed-small")

    def _loss(self, system: System, batch: Batch, noise: Noise) -> Loss:
        draft, importance = self._draft(system, batch, noise)
        simple, mse = self._simple(system, draft)
        terms = {"mse": mse.detach().mean()}
        each = simple
        if self.loss != "simple":
            bits = system.schedule.steps * self._bits(system, draft)
            terms["vlb"] = (importance * bits.detach()).mean()
            each = bits if self.loss == "vlb" else simple + self.vlb_weight * bits
        if self.training:
            self.times.learn(draft.t, each)
        return Loss((importance * each).mean(), terms)

    def _draft(self, system: System, batch: Batch, noise: Noise) -> tuple[Draft, Tensor]:
        """Return what the loss is taken of, and each item's importance weight (B,)."""
        with torch.no_grad():
            x0 = system.encode(batch[self.image], noise)
        t, importance = self.times(noise, system.schedule.steps, x0.device)
        eps = noise.normal(x0, "noise")
        x_t = system.schedule.diffuse(x0, t, eps)
        output = system.output(x_t, t, system.drop(system.codes(batch, noise), noise))
        return Draft(x0, eps, x_t, t, output), importance.to(x0.dtype)

    def _simple(self, system: System, draft: Draft) -> tuple[Tensor, Tensor]:
        """Return each item's simple loss (B,), and its mean squared error (B,) without any weight."""
        kind, schedule = system.plan.prediction, system.schedule
        alpha, sigma = schedule.alpha(draft.t), schedule.sigma(draft.t)
        output, _ = split_variance(draft.output, draft.x_t)
        error = (output - target(kind, draft.x0, draft.eps, alpha, sigma)).flatten(1)
        squared = error.square().mean(1)
        each = squared if self.norm == "l2" else error.abs().mean(1)
        return self.weighting.of_output(kind, alpha, sigma).to(each.dtype) * each, squared

    def _bits(self, system: System, draft: Draft) -> Tensor:
        """Return each item's term of the bound at its level, in bits per dimension, (B,)."""
        schedule, output = system.schedule, draft.output
        if self.loss == "hybrid":  # the bound trains the variance, and nothing else
            mean, spread = output.chunk(2, 1)
            output = torch.cat([mean.detach(), spread], 1)
        alpha, sigma = schedule.alpha(draft.t), schedule.sigma(draft.t)
        said = Denoised.from_output(system.plan.prediction, output, draft.x_t, alpha, sigma)
        step = Reverse.of(schedule, draft.t, draft.t - 1)
        return step.bits(draft.x0, said, self.reverse_variance(system), bins_of(system.space, self.bins))

    def _check(self, system: System) -> None:
        """Refuse a loss that the denoiser's output does not fit."""
        second, variance = _second_half(system), self.reverse_variance(system)
        if second and (self.loss == "simple" or variance != "learned-range"):
            raise IncompatibleParts(
                "the denoiser learns its variance, and nothing would train it",
                where="task.loss" if self.loss == "simple" else "task.variance",
                expected="loss: hybrid or vlb, with variance: learned-range",
                got=f"loss: {self.loss}, with variance: {variance}",
                remedy="use loss: hybrid, or a denoiser whose output has the data's channels alone",
            )
        if not second and (self.loss == "hybrid" or variance == "learned-range"):
            raise IncompatibleParts(
                "a learned variance is asked for, and the denoiser gives none",
                where="task.loss" if self.loss == "hybrid" else "task.variance",
                expected=f"an output with {2 * system.space.channels} channels",
                got=f"an output with {system.denoiser.out_channels}",
                remedy="let the denoiser learn its variance (unet: `variance: learned`), or use loss: simple",
            )


def _second_half(system: System) -> bool:
    """Return whether the denoiser's output has a second half, its variance.

    Raises:
        IncompatibleParts: If the output has neither the data's channels nor twice as many.
    """
    channels, out = system.space.channels, system.denoiser.out_channels
    if out not in (channels, 2 * channels):
        raise IncompatibleParts(
            "the denoiser's output does not fit what is diffused",
            where="denoiser",
            expected=f"{channels} channels, or {2 * channels} with learned variance",
            got=f"{out}",
            remedy="build the denoiser for the space that the autoencoder gives",
        )
    return out == 2 * channels


def _contradiction(key: str, expected: str, got: str, remedy: str) -> IncompatibleParts:
    return IncompatibleParts(
        "two choices of the task exclude each other",
        where=f"task.{key}",
        expected=expected,
        got=got,
        remedy=remedy,
    )
