"""Small parts from which the tests build systems whose losses and likelihoods have a closed form."""

import math
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.noise import Noise
from diffloom.prediction import Prediction, target
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.system import Conditioning, Plan, System
from diffloom.task import Loss
from diffloom_ddpm.ancestral import Ancestral
from diffloom_ddpm.generate import Generate
from diffloom_ddpm.identity import Identity
from diffloom_ddpm.schedules import Linear
from diffloom_ddpm.timesteps import Drawn, Timesteps

WIDE = Space(1, (1, 1), low=-50.0, high=50.0)
"""One number per item, with limits that no datum here reaches."""


class Oracle(Denoiser):
    """The exact posterior mean for data N(m, s²), in any parametrisation, off by `error` in x_0.

    With `learned` it also gives the variance under which the reverse chain is exact.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        mean: float = 0.0,
        std: float = 0.5,
        kind: Prediction = "eps",
        error: float = 0.0,
        learned: bool = False,
    ) -> None:
        super().__init__()
        self.schedule, self.kind, self.learned = schedule, kind, learned
        self.mean, self.variance, self.error = mean, std**2, error
        self.out_channels = 2 if learned else 1
        self.asked: list[float] = []

    def posterior_variance(self, t: Tensor) -> Tensor:
        alpha2, sigma2 = self.schedule.alpha(t) ** 2, self.schedule.sigma(t) ** 2
        return self.variance * sigma2 / (self.variance * alpha2 + sigma2)

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        self.asked.extend(t.reshape(-1).tolist())
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        gain = self.variance * alpha / (self.variance * alpha**2 + sigma**2)
        a, s, g = (value.reshape(-1, *[1] * (x_t.dim() - 1)) for value in (alpha, sigma, gain))
        x0 = self.mean + g * (x_t - a * self.mean) + self.error
        output = target(self.kind, x0, (x_t - a * x0) / s, alpha, sigma).to(x_t.dtype)
        if self.learned:
            return torch.cat([output, torch.full_like(output, float(self._spread(t)))], 1)
        return output

    def _spread(self, t: Tensor) -> Tensor:
        """v with ln σ² = (v+1)/2 ln β + (1−v)/2 ln β̃, for σ² = β̃ + c_1² Var(x_0|x_t), from β alone."""
        i = int(t)
        beta, bar, before = betas(self.schedule)[i], *alpha_bars(self.schedule, i)
        small = beta * (1 - before) / (1 - bar)
        pull = math.sqrt(before) * beta / (1 - bar)
        wanted = math.log(small + pull**2 * float(self.posterior_variance(t)))
        if i == 0:
            one, zero = alpha_bars(self.schedule, 1)
            small = betas(self.schedule)[1] * (1 - zero) / (1 - one)
        return torch.tensor(2 * (wanted - math.log(small)) / (math.log(beta) - math.log(small)) - 1)


@cache
def betas(schedule: Schedule) -> list[float]:
    """β of a linear schedule, by its own formula."""
    if not isinstance(schedule, Linear):
        raise TypeError("only linear schedules are reckoned here")
    ends = schedule.beta_start, schedule.beta_end
    return [float(b) for b in torch.linspace(*ends, schedule.steps, dtype=torch.float64)]


@cache
def alpha_bars(schedule: Schedule, i: int) -> tuple[float, float]:
    """ᾱ_i and ᾱ_{i−1} as products."""
    before = math.prod(1 - b for b in betas(schedule)[:i])
    return before * (1 - betas(schedule)[i]), before


class Given(Noise):
    """Noise that gives the same normal numbers, whatever they are for."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(range(len(values)))
        self.values = values

    def normal(self, like: Tensor, *key: Hashable) -> Tensor:
        return self.values.to(like.dtype)


class Times(Timesteps):
    """Times that are said beforehand."""

    def __init__(self, t: Tensor, weight: Sequence[float] | None = None) -> None:
        super().__init__()
        self.t, self.weight = t, weight or [1.0] * len(t)

    def forward(self, noise: Noise, steps: int, device: torch.device) -> Drawn:
        return Drawn(self.t, torch.tensor(self.weight, dtype=torch.float64))


class Label(Conditioner):
    """Tells the label as a vector of one number; nothing said is −1."""

    needs = ("label",)
    gives = Ports(vector=1)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def encode(self, batch: Batch) -> Condition:
        return Condition(vector=batch["label"][:, None] * self.scale)

    def null(self, code: Condition) -> Condition:
        if code.vector is None:
            raise ValueError("no label was said")
        return Condition(vector=torch.full_like(code.vector, -1.0))


class Listener(Denoiser):
    """A linear network with one weight that writes down what it is told."""

    ports = Ports(vector=1)

    def __init__(self, channels: int = 1, out_channels: int | None = None) -> None:
        super().__init__()
        self.out_channels = out_channels or channels
        self.weight = nn.Parameter(torch.full((self.out_channels, channels), 0.1))
        self.bias = nn.Parameter(torch.zeros(self.out_channels))
        self.heard: list[Condition | None] = []

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        self.heard.append(condition)
        mixed = torch.einsum("oc,bc...->bo...", self.weight.to(x_t.dtype), x_t)
        return mixed + self.bias.to(x_t.dtype).view(-1, *[1] * (x_t.dim() - 2))


def system(
    denoiser: Denoiser,
    task: Generate,
    schedule: Schedule,
    *,
    space: Space = WIDE,
    prediction: Prediction = "eps",
    **conditioning: Any,
) -> System:
    """Return a pixel system; keyword `name=(conditioner, Conditioning)` adds conditioners."""
    return System(
        Plan(space, prediction=prediction, conditioning={n: told for n, (_, told) in conditioning.items()}),
        autoencoder=Identity(space=space),
        task=task,
        schedule=schedule,
        denoiser=denoiser,
        sampler=Ancestral(steps=4),
        conditioners={name: part for name, (part, _) in conditioning.items()},
    )


def loss_of(built: System, images: Tensor, noise: Noise, **batch: Any) -> Loss:
    """Return the task's only loss for some images."""
    (objective,) = built.task.objectives(built)
    return objective.loss({"image": images, **batch}, noise)


def four(mean: float = 0.0, std: float = 0.5) -> tuple[Tensor, Given]:
    """Return data (4, 1, 1, 1) and noise whose second moments are those of N(mean, std²) and N(0, 1), exactly.

    Every mean over these four items of something quadratic in (x_0, ε) is its expectation.
    """
    root = math.sqrt(2.0)
    x0 = torch.tensor([mean + std * root, mean - std * root, mean, mean], dtype=torch.float64)
    eps = torch.tensor([0.0, 0.0, root, -root], dtype=torch.float64)
    return x0.view(4, 1, 1, 1), Given(eps.view(4, 1, 1, 1))


__all__ = ["WIDE", "Conditioning", "Given", "Label", "Listener", "Oracle", "Times", "four", "loss_of", "system"]
