"""Palettes: the colours of classes, published ones and anyone's own."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]

LOVEDA: tuple[Colour, ...] = (
    (255, 255, 255),
    (255, 0, 0),
    (255, 255, 0),
    (0, 0, 255),
    (159, 129, 183),
    (0, 255, 0),
    (255, 195, 128),
)
"""Background, building, road, water, barren, forest and agriculture of LoveDA, which CRS-Diff's maps are drawn in."""

_BITS = 8
_MOST = 255


def colours(palette: str | Sequence[Colour], classes: int) -> Tensor:
    """Return the colours of classes, (classes, 3) in [0, 1].

    Args:
        palette: `voc`, `loveda`, or a triple of 0 … 255 for each class.
        classes: How many are needed.

    Raises:
        ValueError: The palette has fewer.
    """
    known: Sequence[Colour]
    if isinstance(palette, str):
        known = LOVEDA if palette == "loveda" else [voc(number + 1) for number in range(min(classes, _MOST))]
    else:
        known = palette
    if len(known) < classes:
        raise ValueError(f"{classes} classes need as many colours, and the palette has {len(known)}")
    return torch.tensor(known[:classes], dtype=torch.float32) / _MOST


def voc(number: int) -> Colour:
    """Return a colour of PASCAL VOC's map: its bits, three at a time, fill red, green and blue from the highest."""
    red = green = blue = 0
    for place in range(_BITS):
        bits = number >> (3 * place)
        red |= (bits & 1) << (7 - place)
        green |= (bits >> 1 & 1) << (7 - place)
        blue |= (bits >> 2 & 1) << (7 - place)
    return red, green, blue
