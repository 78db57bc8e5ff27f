"""Shapes: discs and squares that are drawn, so that a recipe runs where there are no data.

Law: a sample depends on its index alone, and `get` on (seed, epoch, index).
"""

from typing import Annotated

import torch
from pydantic import Field

from diffloom import Dataset, Space, Transform
from diffloom.data import Sample, transformed
from diffloom.noise import mix


class Shapes(Dataset):
    """`image` (1, size, size) float32 in [−1, 1], −1 paper and 1 ink; `label` 0 for a disc, 1 for a square.

    Args:
        size: Height and width of the images.
        count: How many there are.
        transforms: Applied in order to every sample.
    """

    keys = ("image", "label")
    classes = ("disc", "square")

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=8)] = 16,
        count: Annotated[int, Field(gt=0)] = 1000,
        transforms: tuple[Transform, ...] = (),
    ) -> None:
        self.size = size
        self.count = count
        self.transforms = transforms
        self.space = transformed(Space(channels=1, size=(size, size)), transforms)

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Sample:
        """Return shape `index`: its place and radius are drawn at random, discs and squares in turn."""
        generator = torch.Generator().manual_seed(mix("shapes", index))
        row, column, radius = torch.rand(3, generator=generator).tolist()
        label = index % 2
        axis = torch.linspace(-1, 1, self.size)
        down, across = (axis - row + 0.5).abs()[:, None], (axis - column + 0.5).abs()[None, :]
        distance = torch.hypot(down, across) if label == 0 else torch.maximum(down, across)
        ink = ((0.25 + 0.25 * radius - distance) * self.size / 2).clamp(-1, 1)
        return {"image": ink[None], "label": label}
