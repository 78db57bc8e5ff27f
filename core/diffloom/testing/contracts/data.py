"""What every data set and every transform must do."""

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffloom.data import Dataset, Transform
from diffloom.space import Space
from diffloom.testing.contracts.base import Contract, Make, equal, require


class DatasetContract(Contract):
    """A sample depends on (seed, epoch, index) alone."""

    kind: ClassVar[str] = "dataset"

    def check_samples(self, make: Make) -> None:
        """There are samples, with the declared keys, and images of the declared space."""
        data: Dataset = make()
        require(len(data) > 0, "it is empty")
        for index in {0, len(data) // 2, len(data) - 1}:
            sample = data.get(index)
            require(set(data.keys) <= set(sample), f"sample {index} lacks {set(data.keys) - set(sample)}")
            shape = tuple(sample["image"].shape)
            require(shape == data.space.shape, f"image {index} is {shape}, declared {data.space.shape}")

    def check_repeatable(self, make: Make) -> None:
        """Equal arguments give equal samples, from another instance too."""
        one, other = make(), make()
        for index in {0, len(one) - 1}:
            _same(one.get(index, seed=3, epoch=1), other.get(index, seed=3, epoch=1))


class TransformContract(Contract):
    """A transform changes a copy, and all randomness is its generator's."""

    kind: ClassVar[str] = "transform"

    def check_input_is_left_alone(self, make: Make) -> None:
        """The sample given is not changed."""
        sample = self._sample()
        kept = copy.deepcopy(sample)
        make()(sample, torch.Generator().manual_seed(0))
        _same(sample, kept)

    def check_repeatable(self, make: Make) -> None:
        """Equal generators give equal samples."""
        one, other = (make()(self._sample(), torch.Generator().manual_seed(3)) for _ in range(2))
        _same(one, other)

    def check_space(self, make: Make) -> None:
        """The space it announces is that of what it gives."""
        transform: Transform = make()
        space: Any = self.provided[Space]
        image = transform(self._sample(), torch.Generator().manual_seed(0))["image"]
        wanted = transform.space(space).shape
        require(tuple(image.shape) == wanted, f"images are {tuple(image.shape)}, announced {wanted}")

    def _sample(self) -> dict[str, Any]:
        space: Any = self.provided[Space]
        image = torch.rand(space.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return {"image": image, "label": 1}


def _same(one: dict[str, Any], other: dict[str, Any]) -> None:
    require(set(one) == set(other), f"keys {set(one) ^ set(other)} are in one only")
    for key, value in one.items():
        if isinstance(value, Tensor):
            equal(value, other[key], key)
        else:
            require(value == other[key], f"{key}: {value!r} and {other[key]!r}")
