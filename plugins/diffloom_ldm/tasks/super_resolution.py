"""SuperResolution: an image of more pixels for one of few (Rombach et al. 2022; Saharia et al. 2021, SR3)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom.conditioner import Batch
from diffloom.noise import Noise
from diffloom.system import System
from diffloom.task import Task
from diffloom_ldm.tasks.restoration import Guess, Residual, Restoration


class SuperResolution(Restoration):
    """Enlarge images by any factor; which one is the ratio of the data's images to what a conditioner shows.

    Args:
        consistent: How often the answer is brought to agree with what was given: what it lacks when it is made
            small again is enlarged and added (Irani & Peleg 1991), with bicubic filters. 0 leaves it as the
            network made it; right only where the given image was made by such a filter.
        residual: Learn what a bicubic enlargement lacks, divided by this, its root mean square over the data; by
            default the whole image.
        key: Where a batch has the image to enlarge.
        objective: The task whose objectives are trained; `generate` by default.
    """

    def __init__(
        self,
        *,
        consistent: Annotated[int, Field(ge=0)] = 0,
        residual: Residual | None = None,
        key: str = "low_res",
        objective: Task | None = None,
    ) -> None:
        super().__init__(objective, residual)
        self.consistent, self.key = consistent, key
        self.needs = ("image", key)
        self.told = self.asks = (key,)

    def guesses(self) -> Mapping[str, Guess]:
        """Return `bicubic` and `nearest` enlargements."""
        return {"bicubic": partial(self._enlarged, "bicubic"), "nearest": partial(self._enlarged, "nearest")}

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return enlarged images, `image` (B, C, H, W) in [−1, 1].

        Args:
            system: With a conditioner that shows the network what is to be enlarged.
            batch: With the image to enlarge (B, C, h, w); its large counterpart is never looked at.
            noise: One stream per item.
        """
        made = self.answered(system, batch, system.walk(batch, noise))
        for _ in range(self.consistent):
            made = made + resized(batch[self.key] - resized(made, batch[self.key]), made)
        return {"image": made.clamp(-1, 1)}

    def _enlarged(self, mode: str, batch: Batch, size: Sequence[int]) -> Tensor:
        smooth = mode != "nearest"
        return functional.interpolate(batch[self.key], tuple(size), mode=mode, antialias=smooth).clamp(-1, 1)


def resized(image: Tensor, like: Tensor) -> Tensor:
    """Return an image (B, C, …) in the size of another, by a bicubic filter (Keys 1981), antialiased."""
    return functional.interpolate(image, like.shape[2:], mode="bicubic", antialias=True)
