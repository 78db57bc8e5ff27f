"""Digits: real handwritten digits that come with scikit-learn, so that everything can be tried offline.

1797 greyscale images of 8×8 with values 0 … 16, made from the forms of 43 writers (Alpaydin & Kaynak 1998,
"Optical Recognition of Handwritten Digits", UCI; scikit-learn has the collection's test part).
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from sklearn.datasets import load_digits

from diffloom.data import Dataset, Sample, Transform, transformed
from diffloom.noise import mix
from diffloom.space import Space
from diffloom_data.pixels import resize

_HIGHEST = 16.0

Part = Literal["train", "test", "all"]


class Digits(Dataset):
    """Handwritten digits: `image` (1, size, size) float32 in [−1, 1] (−1 paper, 1 ink) and `label` 0 … 9.

    The test part is one fifth of every class, always the same images. A bicubic filter enlarges them.

    Args:
        size: Height and width of the images.
        split: Four fifths of every class (train), the other fifth (test), or all.
        transforms: Applied in order to every sample.
    """

    keys = ("image", "label")
    classes = tuple("0123456789")

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=4, le=512)] = 16,
        split: Part = "train",
        transforms: tuple[Transform, ...] = (),
    ) -> None:
        digits = load_digits()
        rows = _rows(digits.target.tolist(), split)
        self.size = size
        self.transforms = transforms
        self.space = transformed(Space(1, (size, size)), transforms)
        self._labels = [int(digits.target[row]) for row in rows]
        self._images = torch.from_numpy(digits.images[rows]).float().unsqueeze(1) / _HIGHEST

    def __len__(self) -> int:
        return len(self._labels)

    def column(self, key: str) -> Iterator[Any]:
        """Yield one key of every sample; labels without enlarging images."""
        return iter(self._labels) if key == "label" else super().column(key)

    def read(self, index: int) -> Sample:
        """Return digit `index` of the split."""
        image = resize(self._images[index], (self.size, self.size))
        return {"image": image.mul_(2).sub_(1), "label": self._labels[index]}


def _rows(labels: Sequence[int], split: Part) -> list[int]:
    """Return the rows of the split in ascending order; each class gives one fifth to the test part."""
    if split == "all":
        return list(range(len(labels)))
    test: set[int] = set()
    for label in sorted(set(labels)):
        rows = [row for row, other in enumerate(labels) if other == label]
        test.update(sorted(rows, key=lambda row: mix("digits", row))[: round(len(rows) / 5)])
    return [row for row in range(len(labels)) if (row in test) == (split == "test")]
