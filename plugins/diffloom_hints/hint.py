"""Hint: a map of what a sample shows, made anew for every sample from one of its keys.

Law: a hint is (c, H, W) float32 in [0, 1], at the size of the sample's `image`, under a key of its own. It is made
of the sample as it is at that place of the chain, so it follows the crops and flips of the image if it comes after
them: a transform of geometry refuses a sample that has hints already.

Bands: where a map is drawn from brightness, that is luma for three bands (0.299 R + 0.587 G + 0.114 B, ITU-R 601) and
the mean of the bands for any other number; `bands` chooses which of them count.
"""

from abc import abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffloom.data import Sample, Transform
from diffloom.errors import DataError
from diffloom_data.pixels import resize

Bands = tuple[Annotated[int, Field(ge=0)], ...]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Copies = Annotated[int, Field(gt=0)]

_COLOURS = 3
_LUMA = (0.299, 0.587, 0.114)


class Hint(Transform):
    """Base of all hints.

    Args:
        key: Under which the hint is put.
        of: The key that it is made from; its values are moved to the size of `image` if they have another.

    Attributes:
        note: What whoever sees the hint should know about how it was made; nothing for most.
    """

    note = ""

    def __init__(self, *, key: str = "hint", of: str = "image") -> None:
        self.key, self.of = key, of
        self.adds = self.maps = (key,)
        self.needs = () if of == "image" else (of,)

    @abstractmethod
    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return the hint (c, H, W) in [0, 1] of what stands under `of`, (C, H, W) in the numbers of the sample."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Return the sample with the hint.

        Raises:
            DataError: There is something under its key already, or nothing that it could be made from.
        """
        if self.key in sample:
            raise DataError(
                f"there is a '{self.key}' already",
                where=self.where,
                expected="a key that is free",
                got=f"the keys {', '.join(sample)}",
                remedy="give one of the two another `key`",
            )
        drawn = self.draw(self._given(sample), generator)
        return sample | {self.key: drawn.float().clamp(0, 1)}

    @property
    def where(self) -> str:
        """What an error is about."""
        return f"the hint {type(self).__name__}"

    def _given(self, sample: Sample) -> Tensor:
        """Return what the hint is made from, (C, H, W), at the size of the image."""
        if self.of not in sample:
            raise DataError(
                f"the sample has no '{self.of}'",
                where=self.where,
                got=f"the keys {', '.join(sample)}",
                remedy="name another key under `of`, or use a data set whose samples have it",
            )
        given = torch.as_tensor(sample[self.of])
        given = given[None] if given.dim() == 2 else given
        if given.dim() != 3:
            raise DataError(
                f"'{self.of}' is no map", where=self.where, expected="(C, H, W) or (H, W)", got=str(tuple(given.shape))
            )
        size = (sample["image"].shape[-2], sample["image"].shape[-1])
        return resize(given, size, nearest=self.of == "mask")


class DrawnHint(Hint):
    """Base of the hints that are drawn from brightness: one map, copied as often as a network wants.

    Args:
        key: Under which the hint is put.
        of: The image that it is drawn from, in [−1, 1].
        bands: Indices of the bands that count, from 0; all of them by default.
        copies: Of the map: 3 for weights that expect hints in colour.
    """

    def __init__(self, *, key: str = "hint", of: str = "image", bands: Bands = (), copies: Copies = 1) -> None:
        super().__init__(key=key, of=of)
        self.bands, self.copies = bands, copies

    @abstractmethod
    def trace(self, grey: Tensor, generator: torch.Generator) -> Tensor:
        """Return the map (H, W) in [0, 1] of brightness (H, W) in [0, 1]."""

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return the copies of the map, (copies, H, W)."""
        grey = brightness(chosen(brought(given), self.bands, self.where))
        return self.trace(grey, generator).expand(self.copies, -1, -1).clone()


def brought(image: Tensor) -> Tensor:
    """Return an image in [−1, 1] as float32 in [0, 1]; what is beyond is held, and what is no number is 0."""
    return image.float().add(1).div(2).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)


def chosen(image: Tensor, bands: Bands, where: str) -> Tensor:
    """Return some bands of an image (C, H, W), in the order asked for, or all where none are named."""
    missing = [band for band in bands if band >= len(image)]
    if missing:
        raise DataError(
            f"there is no band {missing[0]}",
            where=where,
            expected=f"bands from 0 to {len(image) - 1}",
            got=f"bands {', '.join(map(str, bands))}",
        )
    return image[list(bands)] if bands else image


def brightness(image: Tensor) -> Tensor:
    """Return luma (H, W) of three bands (3, H, W), and the mean of any other number of bands."""
    if len(image) == _COLOURS:
        return (image * image.new_tensor(_LUMA).view(3, 1, 1)).sum(0)
    return image.mean(0)
