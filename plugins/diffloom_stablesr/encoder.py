"""Encoder: the contracting half of a U-Net that looks at a small image's latent, and knows the time.

    conv → levels of (residual block [+ attention]) × blocks, halved in between → block, attention, block

Every level's map, and the middle's for the last level, goes through one more residual block to a common width. Time
enters every block, because what a small image should say changes on the way from noise to image (StableSR, sec. 3.2).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from diffloom.condition import Condition
from diffloom_nets import (
    Conv2d,
    Downsample,
    ResBlock,
    SelfAttention,
    Taps,
    TimeEmbedding,
    TimeProjection,
    xavier,
)


@dataclass(frozen=True)
class Shape:
    """What an encoder is made of.

    Attributes:
        inputs: Channels of the latent.
        channels: Width of the first level.
        multipliers: Width of each level, in multiples of `channels`; every level after the first halves the map.
        blocks: Residual blocks per level.
        attention: Strides of the levels whose blocks are followed by attention.
        heads: Attention heads.
        width: Of the maps that come out.
        groups: Most groups of a normalisation.
    """

    inputs: int
    channels: int
    multipliers: Sequence[int]
    blocks: int
    attention: Sequence[int]
    heads: int
    width: int
    groups: int

    @property
    def strides(self) -> tuple[int, ...]:
        """How many times smaller than the latent each level is: 1, 2, 4 and so on."""
        return tuple(2**level for level in range(len(self.multipliers)))


class Step(nn.Module):
    """A residual block, with attention after it where there is some."""

    def __init__(self, shape: Shape, channels: int, out: int, *, attended: bool = False) -> None:
        super().__init__()
        self.block = ResBlock(channels, out, groups=shape.groups, eps=1e-5)
        self.attention = SelfAttention(out, heads=shape.heads, groups=shape.groups, eps=1e-5) if attended else None

    def forward(self, h: Tensor, times: Iterator[Tensor], taps: Taps) -> Tensor:
        """Return the map (B, out, H, W); the next of `times` is this block's."""
        h = self.block(h, next(times), taps)
        return h if self.attention is None else self.attention(h)


class TimeAwareEncoder(nn.Module):
    """(z, t) ↦ {stride: features}.

    Args:
        shape: What it is made of.
        timed: Whether it is told the time; without it, every time is 0.
    """

    def __init__(self, shape: Shape, *, timed: bool = True) -> None:
        super().__init__()
        widths = [shape.channels * m for m in shape.multipliers]
        self.strides, self.timed = shape.strides, timed
        self.time = TimeEmbedding(shape.channels, 4 * shape.channels, convention="adm")
        self.stem = xavier(Conv2d(shape.inputs, shape.channels, 3, padding=1))
        self.halvings = nn.ModuleList([Downsample(width, padding="symmetric") for width in widths[:-1]])
        entering = [shape.channels, *widths[:-1]]
        levels = [
            [
                Step(shape, width if i else before, width, attended=stride in shape.attention)
                for i in range(shape.blocks)
            ]
            for before, width, stride in zip(entering, widths, shape.strides, strict=True)
        ]
        middle = [Step(shape, widths[-1], widths[-1], attended=i == 0) for i in range(2)]
        out = [Step(shape, width, shape.width) for width in widths]
        steps = [step for part in (*levels, middle, out) for step in part]
        self.levels = nn.ModuleList([nn.ModuleList(level) for level in levels])
        self.middle, self.out = nn.ModuleList(middle), nn.ModuleList(out)
        self.project = TimeProjection(4 * shape.channels, [step.block.time_width for step in steps])

    def forward(self, z: Tensor, t: Tensor) -> dict[int, Tensor]:
        """Return the features of every stride.

        Args:
            z: Latent of the small image, enlarged to the size of the answer's, (B, inputs, H, W).
            t: (B,) or 0-d.

        Returns:
            Stride s → (B, width, H/s, W/s).
        """
        times = iter(self.project(self.time(t if self.timed else torch.zeros_like(t))))
        taps = Taps((), Condition(), ())
        h = self.stem(z.to(self.stem.weight.dtype, memory_format=torch.channels_last))
        maps = []
        for index, level in enumerate(self.levels):
            if index:
                h = self.halvings[index - 1](h)
            for step in cast(nn.ModuleList, level):
                h = step(h, times, taps)
            maps.append(h)
        for step in self.middle:
            h = step(h, times, taps)
        maps[-1] = h
        return {s: step(m, times, taps) for s, step, m in zip(self.strides, self.out, maps, strict=True)}
