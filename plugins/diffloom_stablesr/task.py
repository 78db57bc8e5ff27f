"""StableSR: real-world super-resolution with a frozen latent diffusion model (Wang et al. 2023, arXiv 2305.07015).

What is learned is how to denoise the large image's latent, told by the small one. An answer begins at that one's own
latent under the noise of the first level, x_T = α_T z_LR + σ_T ε, which matters for brightness wherever α_T is not 0;
and its colours are set right afterwards, because a diffusion model shifts them.
"""

from collections.abc import Mapping, Sequence
from math import gcd
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.system import System
from diffloom.task import Task
from diffloom_ldm.tasks.restoration import Guess, Restoration
from diffloom_stablesr.colour import Correction, corrected
from diffloom_stablesr.time_aware import TimeAwareSFT
from diffloom_stablesr.wrapping import FeatureWrapping


class StableSR(Restoration):
    """Enlarge images of any size, as a `time-aware-sft` conditioner of the recipe sees them.

    Args:
        colour: How the answer takes on the small image's colours: `adain` as a whole, `wavelet` by its low band, or
            not at all.
        start: Where a walk begins: at the small image's latent under noise, or at noise alone.
        multiple: Sides of what is diffused are padded to multiples of this, by mirroring, and cropped afterwards.
        objective: The task whose objectives are trained; `generate` by default.
    """

    def __init__(
        self,
        *,
        colour: Correction = "adain",
        start: Literal["low_res", "noise"] = "low_res",
        multiple: Annotated[int, Field(gt=0)] = 8,
        objective: Task | None = None,
    ) -> None:
        super().__init__(objective)
        self.colour: Correction = colour
        self.start, self.multiple = start, multiple
        self.needs = ("image", "low_res")

    def guesses(self) -> Mapping[str, Guess]:
        """Return the `bicubic` enlargement."""
        return {"bicubic": enlargement}

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return enlarged images.

        Args:
            system: With a `time-aware-sft` conditioner, which knows by how much.
            batch: With the small image (B, C, h, w); its large counterpart is never looked at.
            noise: One stream per item.

        Returns:
            `image` (B, C, scale · h, scale · w) in [−1, 1].

        Raises:
            IncompatibleParts: No conditioner, or more than one, looks at the small image.
        """
        name, guide = guide_of(system)
        small: Tensor = batch[guide.key]
        padded = mirrored(small, self._multiple(system, guide))
        codes = system.codes({**batch, guide.key: padded}, noise)
        begin = cast(Tensor, codes[name])
        x0 = begin if self.start == "low_res" else torch.zeros_like(begin)
        z, large = system.walk(batch, noise, x0=x0, codes=codes), guide.enlarged(padded)
        part = system.autoencoder
        made = part.restore(z, large) if isinstance(part, FeatureWrapping) else part.decode(z)
        made = corrected(made, large, self.colour)
        height, width = (side * guide.scale for side in small.shape[2:])
        return {"image": made[..., :height, :width].clamp(-1, 1)}

    def _multiple(self, system: System, guide: TimeAwareSFT) -> int:
        """Return what the small image's sides must be multiples of."""
        pixels = self.multiple * system.autoencoder.stride
        return pixels // gcd(pixels, guide.scale)


def enlargement(batch: Batch, size: Sequence[int], key: str = "low_res") -> Tensor:
    """Return the small images of a batch in a size H, W, by a bicubic filter (Keys 1981), held to [−1, 1]."""
    return functional.interpolate(batch[key], tuple(size), mode="bicubic").clamp(-1, 1)


def mirrored(image: Tensor, multiple: int) -> Tensor:
    """Return images (B, C, H, W) continued by mirroring, right and below, until both sides are multiples."""
    height, width = (-side % multiple for side in image.shape[2:])
    while height or width:  # a mirror shows no more than there is
        more = min(width, image.shape[3] - 1), min(height, image.shape[2] - 1)
        mode = "reflect" if max(more) else "replicate"
        step = more if max(more) else (width, height)
        image = functional.pad(image, (0, step[0], 0, step[1]), mode=mode)
        width, height = width - step[0], height - step[1]
    return image


def guide_of(system: System) -> tuple[str, TimeAwareSFT]:
    """Return the conditioner that looks at the small image, and its name; IncompatibleParts unless there is one."""
    found = [(name, part) for name, part in system.conditioners.items() if isinstance(part, TimeAwareSFT)]
    if len(found) != 1:
        raise IncompatibleParts(
            "the task needs one conditioner that looks at the small image",
            where="task",
            expected="one conditioner of type time-aware-sft",
            got=", ".join(name for name, _ in found) or "none",
        )
    return found[0]
