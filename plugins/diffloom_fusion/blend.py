"""Blend: what every fusion task has in common: modalities in, one image out, whole and of any size.

Law: the fused image has the size and the channels of the first modality that is given. A batch may lack modalities, as
long as one is there: fusing one with nothing is what the method makes of it alone.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.errors import DataError
from diffloom.noise import Noise
from diffloom.system import System
from diffloom.task import Objective, Task

Colour = Literal["channels", "luma"]

_LUMA = (0.299, 0.587, 0.114)


class Blend(Task):
    """Base of all fusion tasks.

    Args:
        modalities: Keys of the batch; the first gives the fused image its channels.
    """

    paired = True

    def __init__(self, modalities: Sequence[str]) -> None:
        super().__init__()
        if len(set(modalities)) != len(modalities) or not modalities:
            raise DataError(
                "the modalities have to be told apart",
                where="task.modalities",
                expected="different names, one at least",
                got=", ".join(modalities) or "none",
            )
        self.modalities = tuple(modalities)
        self.needs = self.modalities

    @abstractmethod
    def fuse(self, system: System, given: Mapping[str, Tensor], noise: Noise) -> Tensor:
        """Return the fused images (B, C, H, W) in [−1, 1].

        Args:
            system: Whose task this is.
            given: The modalities that there are, in order, each (B, channels, H, W) in [−1, 1].
            noise: One stream per item.
        """

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return nothing: a rule has nothing to learn."""
        return ()

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return `image`, the fused images (B, C, H, W) in [−1, 1].

        Raises:
            DataError: No modality is there, or they differ in size.
        """
        return {"image": self.fuse(system, self.given(batch), noise).clamp(-1, 1)}

    def given(self, batch: Batch) -> dict[str, Tensor]:
        """Return the modalities that a batch has; DataError where there is none, or their sizes differ."""
        given = {key: batch[key] for key in self.modalities if isinstance(batch.get(key), Tensor)}
        if not given:
            raise DataError(
                "the batch has none of the modalities",
                where="task.modalities",
                expected=" or ".join(self.modalities),
                got=f"keys {', '.join(batch) or 'none'}",
            )
        sizes = {key: "×".join(map(str, image.shape[-2:])) for key, image in given.items()}
        if len(set(sizes.values())) > 1:
            raise DataError(
                "the modalities differ in size, so they are not aligned",
                expected="one size",
                got=", ".join(f"{key} {size}" for key, size in sizes.items()),
            )
        return given


class Rule(Blend):
    """Base of the methods that fuse channel by channel, or the light alone.

    Args:
        modalities: Keys of the batch; the first gives the fused image its channels.
        colour: `channels` fuses each channel of the first modality with the others in grey; `luma` fuses its luma and
            keeps its colour differences.
    """

    def __init__(self, modalities: Sequence[str], colour: Colour) -> None:
        super().__init__(modalities)
        self.colour = colour

    @abstractmethod
    def combine(self, layers: Tensor) -> Tensor:
        """Return one layer (B, H, W) in [−1, 1] of several (K, B, H, W): the rule itself."""

    def fuse(self, system: System, given: Mapping[str, Tensor], noise: Noise) -> Tensor:
        """Return the fused images; see `Blend.fuse`."""
        first, *others = given.values()
        if self.colour == "luma":
            light = grey(first)
            fused = self.combine(torch.stack([light, *map(grey, others)])[:, :, 0])[:, None]
            return first + (fused - light)
        layers = torch.stack([first, *(grey(other).expand_as(first) for other in others)])
        return self.combine(layers.flatten(1, 2)).view_as(first)


def grey(image: Tensor) -> Tensor:
    """Return images (B, C, H, W) as (B, 1, H, W): luma of three channels (ITU-R 601), else their mean."""
    if image.shape[1] == len(_LUMA):
        return torch.einsum("c,bchw->bhw", image.new_tensor(_LUMA), image)[:, None]
    return image.mean(1, keepdim=True)
