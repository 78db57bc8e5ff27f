"""Inpaint: fill in what a mask hides (Rombach et al. 2022; without training Lugmayr et al. 2022).

Law: an answer depends on the pixels outside of the mask alone, and with `paste` it has exactly these.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.sampler import Sampler
from diffloom.system import System
from diffloom.task import Task
from diffloom_ldm.conditioners.mask import hidden, hole
from diffloom_ldm.tasks.known_pixels import KnownPixels
from diffloom_ldm.tasks.restoration import Guess, Residual, Restoration


class Inpaint(Restoration):
    """Fill the holes of images.

    Args:
        method: `told`: a conditioner tells the network what is known, as it was in training. `resample`: any
            system that generates does it, by keeping what is known at every step, put in after the step.
        passes: How often `resample` makes each step.
        paste: Lay the known pixels over the answer at the end.
        residual: With `told`, learn what an image lacks whose hole has the mean of what is known, divided by this,
            its root mean square in holes; by default the whole image.
        key: Where a batch has the mask, (B, 1, H, W) or (B, H, W), 1 where pixels are to be made.
        objective: The task whose objectives are trained; `generate` by default.

    Raises:
        IncompatibleParts: A residual is to be learned, and the method is one without learning.
    """

    def __init__(
        self,
        *,
        method: Literal["told", "resample"] = "told",
        passes: Annotated[int, Field(gt=0)] = 1,
        paste: bool = True,
        residual: Residual | None = None,
        key: str = "mask",
        objective: Task | None = None,
    ) -> None:
        super().__init__(objective, residual)
        self.method, self.passes, self.paste, self.key = method, passes, paste, key
        self.needs = ("image", key)
        self.asks = ("image", key)
        self.told = (key,) if method == "told" else ()
        if residual is not None and method == "resample":
            raise IncompatibleParts(
                "a system that generates images knows no residuals",
                where="task.residual",
                expected="null with method: resample",
                got=str(residual),
                remedy="leave it out, or use method: told",
            )

    def guesses(self) -> Mapping[str, Guess]:
        """Return `mean-fill`: each band's mean over the known pixels, in the hole."""
        return {"mean-fill": self._mean_filled}

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return filled images, `image` (B, C, H, W) in [−1, 1].

        Args:
            system: That was trained for it, or for `resample` that generates.
            batch: With `image` (B, C, H, W), whose hidden pixels are never looked at, and the mask.
            noise: One stream per item.
        """
        image = batch["image"]
        mask = hole(batch[self.key], image, self.key)
        if self.method == "resample":
            with system.sampled_by(self._keeping(system, image, mask, noise)):
                latents = system.walk(batch, noise)
        else:
            latents = system.walk(batch, noise)
        made = self.answered(system, batch, latents).clamp(-1, 1)
        return {"image": torch.where(mask > 0, made, image) if self.paste else made}

    def _mean_filled(self, batch: Batch, size: Sequence[int]) -> Tensor:
        image = batch["image"]
        mask = hole(batch[self.key], image, self.key)
        known = hidden(image, mask, 0.0).sum((2, 3), keepdim=True) / (1 - mask).sum((2, 3), keepdim=True).clamp(min=1)
        return torch.where(mask > 0, known, image)

    def _keeping(self, system: System, image: Tensor, mask: Tensor, noise: Noise) -> Sampler:
        """Return the system's sampler, made to keep what is known: latents none of whose pixels is hidden."""
        known = system.autoencoder.encode(hidden(image, mask, 0.0)).mode()
        unknown = functional.adaptive_max_pool2d(mask, known.shape[2:])
        return KnownPixels(
            inner=system.sampler, known=known, mask=unknown, passes=self.passes, noise=noise.within("keep")
        )
