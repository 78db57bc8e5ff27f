"""What every data set and every transform must do."""

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffloom.data import Dataset, Transform
from diffloom.space import Space
from diffloom.testing.contracts.base import Contract, Make, applies, equal, require
from diffloom.testing.standins import batch

_FEW = 8  # samples that are compared with a column


class DatasetContract(Contract):
    """A sample depends on (seed, epoch, index) alone."""

    kind: ClassVar[str] = "dataset"

    def check_samples(self, make: Make) -> None:
        """There are samples, with the declared keys; images, where there are any, are of the declared space."""
        data: Dataset = make()
        require(len(data) > 0, "it is empty")
        for index in {0, len(data) // 2, len(data) - 1}:
            sample = data.get(index)
            require(set(data.holds) <= set(sample), f"sample {index} lacks {set(data.holds) - set(sample)}")
            if "image" in data.holds:
                shape = tuple(sample["image"].shape)
                require(shape == data.space.shape, f"image {index} is {shape}, declared {data.space.shape}")

    def check_repeatable(self, make: Make) -> None:
        """Equal arguments give equal samples, from another instance too."""
        one, other = make(), make()
        for index in {0, len(one) - 1}:
            _same(one.get(index, seed=3, epoch=1), other.get(index, seed=3, epoch=1))

    def check_columns(self, make: Make) -> None:
        """A column is that key of the samples before the transforms, in their order."""
        data: Dataset = make()
        samples = [data.read(index) for index in range(min(_FEW, len(data)))]
        for key in data.keys:
            for sample, value in zip(samples, data.column(key), strict=False):
                _same({key: sample[key]}, {key: value})
            if not isinstance(samples[0][key], Tensor):
                count = sum(1 for _ in data.column(key))
                require(count == len(data), f"the column '{key}' has {count} values, there are {len(data)} samples")


class TransformContract(Contract):
    """A transform changes a copy, and all randomness is its generator's."""

    kind: ClassVar[str] = "transform"

    def check_input_is_left_alone(self, make: Make) -> None:
        """The sample given is not changed."""
        transform: Transform = make()
        sample = self._sample(transform)
        kept = copy.deepcopy(sample)
        after = transform(sample, torch.Generator().manual_seed(0))
        _same(sample, kept)
        require(set(transform.adds) <= set(after), f"it declares {set(transform.adds) - set(after)}, and adds none")
        for key in transform.maps:
            held = bool((after[key] >= 0).all() and (after[key] <= 1).all())
            require(key in transform.adds and held, f"'{key}' is declared as a map, and is not added in [0, 1]")

    def check_repeatable(self, make: Make) -> None:
        """Equal generators give equal samples."""
        one, other = (t(self._sample(t), torch.Generator().manual_seed(3)) for t in (make(), make()))
        _same(one, other)

    def check_space(self, make: Make) -> None:
        """The space it announces is that of what it gives."""
        transform: Transform = make()
        space: Any = self.provided[Space]
        image = transform(self._sample(transform), torch.Generator().manual_seed(0))["image"]
        wanted = transform.space(space).shape
        require(tuple(image.shape) == wanted, f"images are {tuple(image.shape)}, announced {wanted}")

    def _sample(self, transform: Transform) -> dict[str, Any]:
        made = batch(("image", "label", *transform.needs), 2, self.provided[Space])  # type: ignore[arg-type]  # a Space
        applies(made is not None, f"no made-up sample has {', '.join(transform.needs)}")
        return {key: value[1] if isinstance(value, Tensor | list) else value for key, value in (made or {}).items()}


def _same(one: dict[str, Any], other: dict[str, Any]) -> None:
    require(set(one) == set(other), f"keys {set(one) ^ set(other)} are in one only")
    for key, value in one.items():
        if isinstance(value, Tensor):
            equal(value, other[key], key)
        else:
            require(value == other[key], f"{key}: {value!r} and {other[key]!r}")
