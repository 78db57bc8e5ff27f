"""Colour: brightness, contrast and saturation changed by chance, for images in [−1, 1]."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffloom.data import Sample, Transform
from diffloom.errors import DataError
from diffloom.space import Space

_LUMA = (0.299, 0.587, 0.114)


class Colour(Transform):
    """Change brightness, contrast and saturation by chance.

    With v in [0, 1] and factors k drawn evenly from 1 − amount … 1 + amount, brightness is k v; contrast
    k v + (1 − k) m with m the image's mean over all channels; saturation k v + (1 − k) g with g the pixel's
    luma (ITU-R 601). They are made in this order, held to [0, 1] after each. The fourth of four channels is
    opacity and stays as it is.

    Args:
        brightness: Amount for the brightness; any number of channels.
        contrast: Amount for the contrast; any number of channels.
        saturation: Amount for the saturation; three or four channels.
        keys: What is changed, all alike.
    """

    def __init__(
        self,
        *,
        brightness: Annotated[float, Field(ge=0, le=1)] = 0.2,
        contrast: Annotated[float, Field(ge=0, le=1)] = 0.2,
        saturation: Annotated[float, Field(ge=0, le=1)] = 0.0,
        keys: tuple[str, ...] = ("image",),
    ) -> None:
        self.amounts = (brightness, contrast, saturation)
        self.keys = keys

    def space(self, space: Space) -> Space:
        """Return the same space; DataError where it is not [−1, 1], or has no colour to saturate."""
        if (space.low, space.high) != (-1.0, 1.0):
            raise DataError(
                "light and colour are defined for bounded images",
                where="the transform `colour`",
                expected="values in −1 … 1",
                got=f"{space.low} … {space.high}",
            )
        self._check(space.channels)
        return space

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Return the sample with its images changed by the same factors."""
        draws = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        factors = [1 + amount * (2 * draw - 1) for amount, draw in zip(self.amounts, draws, strict=True)]
        return sample | {key: self._changed(sample[key], factors) for key in self.keys}

    def _changed(self, image: Tensor, factors: Sequence[float]) -> Tensor:
        """Return an image (…, C, H, W) in [−1, 1] with the factors applied."""
        brightness, contrast, saturation = factors
        channels = image.shape[-3]
        self._check(channels)
        visible = 3 if channels == 4 else channels
        values = image[..., :visible, :, :].add(1).div(2)
        if brightness != 1:
            values = (values * brightness).clamp(0, 1)
        if contrast != 1:
            values = torch.lerp(values.mean(dim=(-3, -2, -1), keepdim=True), values, contrast).clamp(0, 1)
        if saturation != 1:
            luma = (values * values.new_tensor(_LUMA).view(3, 1, 1)).sum(-3, keepdim=True)
            values = torch.lerp(luma, values, saturation).clamp(0, 1)
        return torch.cat([values.mul(2).sub(1), image[..., visible:, :, :]], dim=-3)

    def _check(self, channels: int) -> None:
        if self.amounts[2] and channels not in (3, 4):
            raise DataError(
                "only colour images can be saturated",
                where="the transform `colour`",
                expected="3 channels, or 4 with opacity",
                got=f"{channels}",
                remedy="set `saturation: 0`",
            )
