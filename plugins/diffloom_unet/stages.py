"""The steps of a U-Net's way down, middle and way up, and what all of them share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from diffloom.condition import Condition
from diffloom.errors import IncompatibleParts
from diffloom_nets import (
    Downsample,
    GroupNorm,
    Padding,
    Resample,
    ResBlock,
    SelfAttention,
    SpatialTransformer,
    Taps,
    Upsample,
)

Resampling = Literal["conv", "residual"]


class Stage(nn.Module):
    """A residual block, with attention or a transformer after it where there is some."""

    def __init__(self, block: ResBlock, attention: SelfAttention | SpatialTransformer | None = None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, h: Tensor, time: Tensor, taps: Taps, told: Condition) -> Tensor:
        """Return the map, (B, C, H, W) → (B, out, H, W)."""
        h = self.block(h, time, taps)
        if isinstance(self.attention, SpatialTransformer):
            h = self.attention(h, told)
        elif self.attention is not None:
            h = self.attention(h)
        return h


Step = Stage | ResBlock | Downsample | Upsample
"""A step of the way down or up; a residual block of its own halves or doubles the map, as the last two do."""


@dataclass(frozen=True)
class Plan:
    """What a U-Net is made of; the fields are its parameters of the same names, resolved.

    Attributes:
        stem: Width of the stem.
        widths: Width of each level, the finest first.
        attended: Per level, whether attention stands there.
        depths: Per level, how many blocks a transformer has.
    """

    stem: int
    widths: Sequence[int]
    attended: Sequence[bool]
    depths: Sequence[int]
    blocks: int
    heads: int
    head_width: int | None
    context: int
    dropout: float
    groups: int
    eps: float
    scale_shift: bool
    padding: Padding
    resampling: Resampling

    def down(self) -> Iterator[Step]:
        """Yield the steps after the stem, each ending in a skip: stages, and a halving between levels."""
        channels, count = self.stem, 0
        for level, width in enumerate(self.widths):
            if level:
                yield self._halving(channels, level - 1)
            for _ in range(self.blocks):
                yield self._stage(channels, width, f"down.{count}", level, self.attended[level])
                channels, count = width, count + 1

    def middle(self) -> Iterator[Stage]:
        """Yield the two stages between the ways, the first with attention."""
        width, level = self.widths[-1], len(self.widths) - 1
        yield self._stage(width, width, "mid.0", level, True)
        yield self._stage(width, width, "mid.1", level, False)

    def up(self) -> Iterator[Step]:
        """Yield the steps after the middle: one stage more per level, and a doubling between levels."""
        channels, count, skips = self.widths[-1], 0, self.skips()
        for level, width in reversed(list(enumerate(self.widths))):
            for _ in range(self.blocks + 1):
                yield self._stage(channels + skips.pop(), width, f"up.{count}", level, self.attended[level])
                channels, count = width, count + 1
            if level:
                yield self._doubling(channels, len(self.widths) - 1 - level)

    def skips(self) -> list[int]:
        """Return the channels of each skip in the order of the way down: the stem, then every step."""
        skips = [self.stem]
        for level, width in enumerate(self.widths):
            skips += [skips[-1]] * (level > 0) + [width] * self.blocks
        return skips

    def norm(self, channels: int) -> GroupNorm:
        """Return a normalisation."""
        return GroupNorm(channels, groups=self.groups, eps=self.eps)

    def heads_of(self, width: int) -> int:
        """Return the number of attention heads in a level of a width."""
        return max(width // self.head_width, 1) if self.head_width else self.heads

    def _halving(self, channels: int, index: int) -> ResBlock | Downsample:
        if self.resampling == "conv":
            return Downsample(channels, padding=self.padding)
        return self._block(channels, channels, f"halve.{index}", "halve")

    def _doubling(self, channels: int, index: int) -> ResBlock | Upsample:
        if self.resampling == "conv":
            return Upsample(channels)
        return self._block(channels, channels, f"double.{index}", "double")

    def _stage(self, channels: int, out: int, name: str, level: int, attended: bool) -> Stage:
        return Stage(self._block(channels, out, name), self._attention(out, name, level) if attended else None)

    def _block(self, channels: int, out: int, name: str, resample: Resample | None = None) -> ResBlock:
        return ResBlock(
            channels,
            out,
            name=name,
            dropout=self.dropout,
            scale_shift=self.scale_shift,
            groups=self.groups,
            eps=self.eps,
            resample=resample,
        )

    def _attention(self, channels: int, name: str, level: int) -> SelfAttention | SpatialTransformer:
        heads = self.heads_of(channels)
        if channels % (self.head_width or heads):
            raise IncompatibleParts(
                "attention heads cannot share the channels evenly",
                where="denoiser",
                expected=f"a divisor of {channels}",
                got=f"head_width {self.head_width}" if self.head_width else f"heads {heads}",
            )
        if not self.context:
            return SelfAttention(channels, heads=heads, groups=self.groups, eps=self.eps)
        depth = self.depths[level]
        return SpatialTransformer(channels, self.context, heads=heads, depth=depth, groups=self.groups, name=name)
