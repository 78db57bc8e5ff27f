"""Robust: learns to denoise by the pseudo-Huber loss, and makes images from noise (Song & Dhariwal 2024, section 3.3).

    L = √(‖output − target‖² + c² D) − c √D,   D = numbers per item

Law: the loss is a mean over items; an item's share depends on its own data and seed alone. Far from the target it
grows linearly, so that single odd images do not lead the training.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffloom import Loss, Noise, Objective, System, Task
from diffloom.conditioner import Batch
from diffloom.prediction import require_defined, target


class Robust(Task):
    """Generation, trained by a loss between squared and absolute error; pixels or latents, with any conditioners.

    Args:
        c: Error per number at which the loss goes over from squared to linear.
    """

    def __init__(self, *, c: Annotated[float, Field(gt=0)] = 0.1) -> None:
        super().__init__()
        self.c = c

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return the one objective, over the denoiser and the conditioners; IncompatibleParts where it is undefined."""
        require_defined(system.plan.prediction, system.schedule)
        parts = {role: part for role, part in system.roles().items() if role not in ("autoencoder", "task")}
        moved = {f"{role}.{name}": p for role, part in parts.items() for name, p in part.named_parameters()}
        return [Objective("denoise", moved, partial(self._loss, system))]

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return new images, `image` (B, C, H, W) in [−1, 1], one per stream of the noise."""
        return {"image": system.autoencoder.decode(system.walk(batch, noise)).clamp(-1, 1)}

    def _loss(self, system: System, batch: Batch, noise: Noise) -> Loss:
        with torch.no_grad():
            x0 = system.encode(batch["image"], noise)
        schedule = system.schedule
        t = noise.integers(schedule.steps, x0.device, "time")
        eps = noise.normal(x0, "noise")
        output = system.output(schedule.diffuse(x0, t, eps), t, system.drop(system.codes(batch), noise))
        wanted = target(system.plan.prediction, x0, eps, schedule.alpha(t), schedule.sigma(t))
        squared = (output - wanted).square().flatten(1)
        size = squared.shape[1]
        each = (squared.sum(1) + self.c**2 * size).sqrt() - self.c * math.sqrt(size)
        return Loss(each.mean(), {"mse": squared.detach().mean()})
