"""Generation, learnt from images that clouds hide in part."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from diffloom import Loss, Noise, Objective, Space, System, Task
from diffloom.conditioner import Batch
from diffloom.prediction import require_defined, target


class Cloudy(Task):
    """The simple loss over the pixels that `valid` (B, 1, H, W) says were seen; in latents, blocks seen as a whole.

    Args:
        key: The mask's key.
    """

    def __init__(self, *, key: str = "valid") -> None:
        super().__init__()
        self.key = key
        self.needs = ("image", key)

    @staticmethod
    def example_batch(count: int, space: Space) -> dict[str, Tensor]:
        """Return masks whose left half was seen, for the contract."""
        valid = torch.ones(count, 1, *space.size)
        valid[..., space.size[1] // 2 :] = 0
        return {"valid": valid}

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return the one objective, over the denoiser and the conditioners."""
        require_defined(system.plan.prediction, system.schedule)
        parts = {role: part for role, part in system.roles().items() if role not in ("autoencoder", "task")}
        moved = {f"{role}.{name}": p for role, part in parts.items() for name, p in part.named_parameters()}
        return [Objective("denoise", moved, partial(self._loss, system))]

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return new images, `image` (B, C, H, W) in [−1, 1]."""
        return {"image": system.autoencoder.decode(system.walk(batch, noise)).clamp(-1, 1)}

    def _loss(self, system: System, batch: Batch, noise: Noise) -> Loss:
        with torch.no_grad():
            x0 = system.encode(batch["image"], noise)
        schedule, t = system.schedule, noise.integers(system.schedule.steps, x0.device, "time")
        eps = noise.normal(x0, "noise")
        output = system.output(schedule.diffuse(x0, t, eps), t, system.drop(system.codes(batch), noise))
        wanted = target(system.plan.prediction, x0, eps, schedule.alpha(t), schedule.sigma(t))
        seen = -functional.adaptive_max_pool2d(-batch[self.key].to(x0), x0.shape[-2:])
        loss = ((output - wanted).square() * seen).sum() / (seen.sum() * x0.shape[1]).clamp(min=1)
        return Loss(loss, {"seen": seen.mean()})
