"""Fields through the year, drawn; and clouds over them."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch.nn import functional

from diffloom import Dataset, Space, Transform
from diffloom.data import Sample, transformed
from diffloom.noise import mix


class Fields(Dataset):
    """`image` (2, size, size) in [−1, 1], red and near infrared, of fields that are green in July; `day` 0 … 365.

    Args:
        size: Height and width of the images.
        count: How many there are.
        transforms: Applied in order to every sample.
    """

    keys = ("image", "day")

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=8)] = 16,
        count: Annotated[int, Field(gt=0)] = 512,
        transforms: tuple[Transform, ...] = (),
    ) -> None:
        self.size, self.count, self.transforms = size, count, transforms
        self.space = transformed(Space(channels=2, size=(size, size)), transforms)

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Sample:
        """Return field `index`: its day, and how green each of 16 crops is."""
        generator = torch.Generator().manual_seed(mix("fields", index))
        day = 365 * torch.rand((), generator=generator)
        green = 0.5 - 0.4 * torch.cos(2 * math.pi * day / 365.25)
        crops = green * (0.6 + 0.4 * torch.rand(1, 1, 4, 4, generator=generator))
        grown = functional.interpolate(crops, size=(self.size, self.size))[0]
        return {"image": torch.cat([0.3 - 0.25 * grown, 0.3 + 0.5 * grown]) * 2 - 1, "day": float(day)}


class Clouds(Transform):
    """Hides a square of the image at random: adds `valid` (1, H, W), 0 under the cloud and 1 elsewhere.

    Args:
        share: Side of the cloud, in parts of the image's.
    """

    adds = ("valid",)

    def __init__(self, *, share: Annotated[float, Field(ge=0, lt=1)] = 0.4) -> None:
        self.share = share

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Return the sample with its mask."""
        height, width = sample["image"].shape[-2:]
        down, across = round(self.share * height), round(self.share * width)
        top = int(torch.randint(height - down + 1, (), generator=generator))
        left = int(torch.randint(width - across + 1, (), generator=generator))
        valid = torch.ones(1, height, width)
        valid[:, top : top + down, left : left + across] = 0
        return sample | {"valid": valid}
