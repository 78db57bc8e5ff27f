"""Noise given instead of drawn, and a network that is a plain formula: to compare number by number."""

from collections.abc import Hashable, Sequence

import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

from diffloom.noise import Noise
from diffloom.prediction import Denoised, Prediction
from diffloom.sampler import Model
from diffloom.schedule import Schedule

law = settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
"""How often, and how, hypothesis tries a law here."""


class Given(Noise):
    """Hands out prepared tensors in order, whatever the key."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        super().__init__(range(draws[0].shape[0]))
        self.draws = list(draws)
        self.used = 0

    def normal(self, like: Tensor, *key: Hashable) -> Tensor:
        self.used += 1
        return self.draws[self.used - 1].to(like)


class Constant(Noise):
    """Hands out the same tensor every time."""

    def __init__(self, draw: Tensor) -> None:
        super().__init__(range(draw.shape[0]))
        self.draw = draw

    def normal(self, like: Tensor, *key: Hashable) -> Tensor:
        return self.draw.to(like)


def formula(x: Tensor, t: Tensor | float) -> Tensor:
    """Return what the "network" says: smooth, not linear, and different at every time."""
    return torch.tanh(1.3 * x + 0.7 * torch.cos(x) - float(t) / 900)


def network(schedule: Schedule, kind: Prediction = "eps") -> Model:
    """Return the formula as a model on a schedule."""

    def model(x: Tensor, t: Tensor) -> Denoised:
        return Denoised.from_output(kind, formula(x, t), x, schedule.alpha(t), schedule.sigma(t))

    return model


def start(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return x_T (2, 3, 4, 4)."""
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)
