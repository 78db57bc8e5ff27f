"""Dataset, Transform: where samples come from. A sample is a dict; what comes out depends on (seed, epoch, index) only.

Order and random transforms are functions of the seed and the position, so a resumed run sees exactly the samples
that an unbroken one would have seen, with any number of workers.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from diffloom.noise import mix
from diffloom.space import Space

Sample = dict[str, Any]
"""One item: `image` (C, H, W) float32 in [−1, 1], `label` int, `caption` str, … as in a `Batch`, without the B."""


class Transform(ABC):
    """Base of all transforms: changes one sample."""

    @abstractmethod
    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Return a changed copy of `sample`; any randomness comes from `generator`."""

    def space(self, space: Space) -> Space:
        """Return the space of `image` after this transform, given the one before."""
        return space


class Dataset(ABC):
    """Base of all data sets.

    Attributes:
        space: The space of `image` after the transforms.
        keys: What every sample holds.
        classes: Names of the classes, when samples have a `label`.
        transforms: Applied in order to every sample read.
    """

    space: Space
    keys: tuple[str, ...] = ("image",)
    classes: tuple[str, ...] = ()
    transforms: Sequence[Transform] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Return how many samples there are."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Return sample `index`, before any transform. Raises DataError naming the file that cannot be read."""

    def get(self, index: int, *, seed: int = 0, epoch: int = 0) -> Sample:
        """Return sample `index` after the transforms; equal arguments give an equal sample."""
        sample = self.read(index)
        generator = torch.Generator().manual_seed(mix("transform", seed, epoch, index))
        for transform in self.transforms:
            sample = transform(sample, generator)
        return sample
