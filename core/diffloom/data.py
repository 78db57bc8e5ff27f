"""Dataset, Transform: where samples come from. A sample is a function of (seed, epoch, index) and no more.

Order and random transforms are functions of the seed and the position, so a resumed run sees exactly the
samples that an unbroken one would have seen, with any number of workers.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from diffloom.errors import DataError
from diffloom.noise import mix
from diffloom.space import Space

Sample = dict[str, Any]
"""One item: `image` (C, H, W) float32 in [−1, 1], `label` int, `caption` str, …: a `Batch` without the B."""


class Transform(ABC):
    """Base of all transforms: changes one sample.

    Attributes:
        needs: Keys that it reads beside `image`.
        adds: Keys that samples hold after it, and need not hold before.
        maps: Which of these are maps of values in [0, 1], as masks are; other pictures are in [−1, 1].
    """

    needs: tuple[str, ...] = ()
    adds: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()

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
        keys: What every sample holds before the transforms.
        classes: Names of the classes, when samples have a `label`.
        transforms: Applied in order to every sample read.
    """

    space: Space
    keys: tuple[str, ...] = ("image",)
    classes: tuple[str, ...] = ()
    transforms: Sequence[Transform] = ()

    @property
    def holds(self) -> tuple[str, ...]:
        """What every sample holds after the transforms."""
        return tuple(dict.fromkeys([*self.keys, *(key for made in self.transforms for key in made.adds)]))

    def column(self, key: str) -> Iterator[Any]:
        """Yield one key of every sample before the transforms; override it where that needs no whole sample."""
        return (self.read(index)[key] for index in range(len(self)))

    @abstractmethod
    def __len__(self) -> int:
        """Return how many samples there are."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Return sample `index`, before any transform; DataError naming a file that cannot be read."""

    def get(self, index: int, *, seed: int = 0, epoch: int = 0) -> Sample:
        """Return sample `index` after the transforms; equal arguments give an equal sample."""
        return self.changed(self.read(index), index, seed=seed, epoch=epoch)

    def changed(self, sample: Sample, index: int, *, seed: int = 0, epoch: int = 0) -> Sample:
        """Return a sample after the transforms, whose randomness is a function of (seed, epoch, index)."""
        generator = torch.Generator().manual_seed(mix("transform", seed, epoch, index))
        for transform in self.transforms:
            sample = transform(sample, generator)
        return sample


def transformed(space: Space, transforms: Sequence[Transform]) -> Space:
    """Return the space of images that were in `space` before `transforms`."""
    for transform in transforms:
        space = transform.space(space)
    return space


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the batch of `samples`.

    Tensors are stacked to (B, …), truth values become a bool tensor (B,), whole numbers int64 (B,), other
    numbers float32 (B,); strings and everything else become a list of B.

    Raises:
        DataError: The samples have different keys, or a key's tensors different shapes.
    """
    if not samples:
        raise DataError("there are no samples to make a batch of", remedy="give a data set that has samples")
    keys = list(samples[0])
    for sample in samples:
        if set(sample) != set(keys):
            raise DataError(
                "the samples of a batch have different keys",
                expected=f"{', '.join(keys)} in all",
                got=f"one with {', '.join(sample)}",
                remedy="give every sample of a data set the same keys",
            )
    return {key: _column(key, [sample[key] for sample in samples]) for key in keys}


def _column(key: str, values: list[Any]) -> Any:
    if all(isinstance(value, Tensor) for value in values):
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise DataError(
                f"the tensors {key!r} of a batch do not stack",
                expected="one shape",
                got=" and ".join(str(shape) for shape in sorted(shapes)),
                remedy="give the data set a size, or a `resize` transform",
            )
        return torch.stack(values)
    for kind, dtype in ((bool, torch.bool), (Integral, torch.int64), (Real, torch.float32)):
        if all(isinstance(value, kind) for value in values):
            return torch.tensor(values, dtype=dtype)
    return values
