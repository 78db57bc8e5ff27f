"""Grounding: boxes with labels as tokens whose places are waves (Li et al. 2023, GLIGEN, eq. 4 and 5).

Law: an object's token is  MLP([label, fourier(box)]),  fourier(v) = [sin(v 100^{k/K}), cos(v 100^{k/K})], k = 0 … K−1,
of the box's four corners' coordinates. Where there is no object, learned vectors stand for label and place.
"""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom_ldm.conditioners.layout import NOBODY, checked_boxes
from diffloom_ldm.conditioners.ports import context_width

Count = Annotated[int, Field(gt=0)]
_LOWEST_WAVE = 100.0


def fourier(values: Tensor, frequencies: int) -> Tensor:
    """Return sines and cosines of numbers.

    Args:
        values: (…, n), in [0, 1].
        frequencies: K.

    Returns:
        (…, 2 · K · n): for every k the sines of all numbers, then their cosines.
    """
    waves = _LOWEST_WAVE ** (torch.arange(frequencies, device=values.device) / frequencies)
    angles = values[..., None, None, :] * waves[:, None, None]
    return torch.cat([angles.sin(), angles.cos()], -2).flatten(-3)


class Grounding(Conditioner):
    """Boxes with labels as one token each, for cross-attention.

    Args:
        classes: How many classes objects can have.
        objects: Most objects of an image.
        frequencies: K of the waves.
        label_width: Numbers per label.
        hidden: Width of the perceptron's two hidden layers.
        denoiser: Whose context port is filled.

    Raises:
        IncompatibleParts: The denoiser has no context port.
    """

    needs = ("boxes", "box_labels")
    examples: ClassVar = ({"classes": 3, "objects": 3, "label_width": 6, "hidden": 8},)

    def __init__(
        self,
        *,
        classes: Count,
        objects: Count = 30,
        frequencies: Count = 8,
        label_width: Count = 768,
        hidden: Count = 512,
        denoiser: Denoiser,
    ) -> None:
        super().__init__()
        width = context_width(denoiser, "layout-fourier")
        self.kinds, self.objects, self.frequencies = classes, objects, frequencies
        self.gives = Ports(context=width)
        self.labels = nn.Embedding(classes, label_width)
        self.no_label = nn.Parameter(torch.zeros(label_width))
        self.no_place = nn.Parameter(torch.zeros(8 * frequencies))
        self.perceptron = nn.Sequential(
            nn.Linear(label_width + 8 * frequencies, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, width),
        )

    def encode(self, batch: Batch) -> Condition:
        """Return the context (B, objects, width).

        Args:
            batch: With `boxes` (B, M, 4) and `box_labels` (B, M), as `layout` reads them.

        Raises:
            DataError: There are too many objects, or one has no class or lies outside of the image.
        """
        boxes, labels = checked_boxes(batch, self.kinds, self.objects)
        room = self.objects - boxes.shape[1]
        boxes = nn.functional.pad(boxes, (0, 0, 0, room)).to(self.no_place)
        labels = nn.functional.pad(labels, (0, room), value=NOBODY).to(self.no_place.device)
        return Condition(context=self._said(boxes, labels))

    def null(self, code: Condition) -> Condition:
        """Return the context of no objects."""
        count = 0 if code.context is None else code.context.shape[0]
        boxes = self.no_place.new_zeros(1, self.objects, 4)
        labels = torch.full((1, self.objects), NOBODY, device=boxes.device)
        return Condition(context=self._said(boxes, labels).expand(count, -1, -1))

    def _said(self, boxes: Tensor, labels: Tensor) -> Tensor:
        there = (labels != NOBODY)[..., None]
        corners = torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)
        label = torch.where(there, self.labels(labels.clamp(min=0)), self.no_label)
        place = torch.where(there, fourier(corners, self.frequencies), self.no_place)
        out: Tensor = self.perceptron(torch.cat([label, place], -1))
        return out
