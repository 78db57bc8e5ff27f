"""RandomMask: what of an image is to be filled in, drawn anew for every sample (as in LaMa, Suvorov et al. 2022)."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.data import Sample, Transform
from diffloom.errors import DataError

Share = Annotated[float, Field(gt=0, le=1)]
_SEGMENTS, _BEND = 4, math.pi / 2


class RandomMask(Transform):
    """Add `mask` (1, H, W) float32, 1 where pixels are to be made: boxes, or strokes of a brush.

    A box has sides drawn evenly from `smallest` … `largest`. A stroke has four straight parts, each turned
    against the one before by up to a right angle, and as long as a box is wide or up to the image's border; the
    brush is round.

    Args:
        kind: What is drawn; `either` takes one of the two by chance.
        count: Most boxes or strokes of a mask; there is one at least.
        smallest: Share of the image's shorter side.
        largest: Share of the image's shorter side.
        brush: Width of a stroke, as a share of the shorter side.
        key: Where the mask is put.
    """

    def __init__(
        self,
        *,
        kind: Literal["boxes", "strokes", "either"] = "either",
        count: Annotated[int, Field(gt=0)] = 3,
        smallest: Share = 0.2,
        largest: Share = 0.5,
        brush: Share = 0.12,
        key: str = "mask",
    ) -> None:
        if smallest > largest:
            raise ValueError(f"the smallest side, {smallest}, is above the largest, {largest}")
        self.kind, self.count = kind, count
        self.smallest, self.largest, self.brush = smallest, largest, brush
        self.key = key
        self.adds = (key,)

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Return the sample with a mask; DataError where it has one."""
        if self.key in sample:
            raise DataError(
                f"there is a '{self.key}' already",
                where="the transform `random-mask`",
                remedy="leave the transform out, or give it another `key`",
            )
        height, width = sample["image"].shape[-2:]
        kind, count = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        strokes = self.kind == "strokes" or (self.kind == "either" and kind < 0.5)
        draw = self._stroke if strokes else self._box
        mask = torch.zeros(height, width, dtype=torch.bool)
        for _ in range(1 + int(count * self.count)):
            mask |= draw(height, width, generator)
        return sample | {self.key: mask[None].float()}

    def _box(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        draws = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        tall, wide = (max(1, round(self._length(draw, min(height, width)))) for draw in draws[:2])
        top, left = (int(draw * (n + 1)) for draw, n in zip(draws[2:], (height - tall, width - wide), strict=True))
        box = torch.zeros(height, width, dtype=torch.bool)
        box[top : top + tall, left : left + wide] = True
        return box

    def _stroke(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        draws = torch.rand(3 + 2 * _SEGMENTS, generator=generator, dtype=torch.float64).tolist()
        y, x, angle = draws[0] * height, draws[1] * width, draws[2] * 2 * math.pi
        rows, columns = (torch.arange(n, dtype=torch.float64) + 0.5 for n in (height, width))
        found = torch.zeros(height, width, dtype=torch.bool)
        short = min(height, width)
        for turn, length in zip(draws[3::2], draws[4::2], strict=True):
            angle += _BEND * (2 * turn - 1)
            far = self._length(length, short)
            below, beside = y + far * math.sin(angle), x + far * math.cos(angle)
            end = (min(max(below, 0.0), float(height)), min(max(beside, 0.0), float(width)))
            found |= _near(rows[:, None], columns, (y, x), end) <= self.brush * short / 2
            y, x = end
        return found

    def _length(self, draw: float, side: int) -> float:
        return side * (self.smallest + draw * (self.largest - self.smallest))


def _near(y: Tensor, x: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """Return the distance of every point to the line between two, (H, W), in pixels."""
    down, right = end[0] - start[0], end[1] - start[1]
    length = down**2 + right**2
    along = ((y - start[0]) * down + (x - start[1]) * right).div(length or 1.0).clamp(0, 1)
    return torch.hypot(y - start[0] - along * down, x - start[1] - along * right)
