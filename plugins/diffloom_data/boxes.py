"""Boxes: the objects of a mask of classes, as boxes with labels: for telling a network a layout."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from diffloom.data import Sample, Transform

NOBODY = -1


class Boxes(Transform):
    """Add `boxes` (objects, 4) float32 and `box_labels` (objects,) int64, one for each connected part of a class.

    A box holds x and y of its upper left corner, its width and its height, as shares of the image's sides. Parts
    touch where they share a side or a corner. The largest come in; the rest of the places hold zeros with label −1.
    It comes after all transforms of geometry, which leave boxes as they are.

    Args:
        objects: Most objects of an image.
        smallest: Parts whose area is a smaller share of the image are left out.
        without: Class numbers that make no objects, such as 255 for "unknown".
        shuffle: Order the objects by chance, instead of the largest first.
        key: Where the sample has the mask, (1, H, W) or (H, W).
    """

    adds = ("boxes", "box_labels")

    def __init__(
        self,
        *,
        objects: Annotated[int, Field(gt=0)] = 30,
        smallest: Annotated[float, Field(ge=0, lt=1)] = 0.01,
        without: tuple[int, ...] = (),
        shuffle: bool = True,
        key: str = "mask",
    ) -> None:
        self.objects, self.smallest = objects, smallest
        self.without, self.shuffle, self.key = without, shuffle, key
        self.needs = (key,)

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Return the sample with the boxes of its mask."""
        mask = torch.as_tensor(sample[self.key]).squeeze(0).numpy()
        found = sorted(parts(mask, self.without), key=lambda part: -part[2])
        kept = [part for part in found if part[2] >= self.smallest * mask.size][: self.objects]
        if self.shuffle:
            kept = [kept[i] for i in torch.randperm(len(kept), generator=generator).tolist()]
        boxes = torch.zeros(self.objects, 4)
        labels = torch.full((self.objects,), NOBODY)
        for place, (label, box, _) in enumerate(kept):
            labels[place] = label
            boxes[place] = torch.tensor(box)
        return sample | {"boxes": boxes, "box_labels": labels}


def parts(mask: NDArray[np.generic], without: tuple[int, ...] = ()) -> list[tuple[int, tuple[float, ...], int]]:
    """Return every connected part of every class of a mask (H, W): its class, its box and its area in pixels.

    Args:
        mask: Class numbers.
        without: Classes that are passed over.
    """
    height, width = mask.shape
    found: list[tuple[int, tuple[float, ...], int]] = []
    for label in sorted(set(np.unique(mask).astype(int).tolist()) - set(without)):
        numbered, count = ndimage.label(mask == label, structure=np.ones((3, 3)))
        areas = np.bincount(numbered.ravel(), minlength=count + 1)
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
            box = (
                columns.start / width,
                rows.start / height,
                (columns.stop - columns.start) / width,
                (rows.stop - rows.start) / height,
            )
            found.append((label, box, int(areas[number])))
    return found
