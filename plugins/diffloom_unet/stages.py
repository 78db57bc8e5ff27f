"""The steps of a U-Net's way down, middle and way up, and what all of them share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from diffloom.errors import IncompatibleParts
from diffloom_nets import Downsample, GroupNorm, Padding, ResBlock, SelfAttention, Taps, Upsample


class Stage(nn.Module):
    """A residual block, with attention after it where there is some."""

    def __init__(self, block: ResBlock, attention: SelfAttention | None = None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, h: Tensor, time: Tensor, taps: Taps) -> Tensor:
        """Return the map, (B, C, H, W) → (B, out, H, W)."""
        h = self.block(h, time, taps)
        return h if self.attention is None else self.attention(h)


@dataclass(frozen=True)
class Plan:
    """What a U-Net is made of; the fields are its parameters of the same names, resolved.

    Attributes:
        stem: Width of the stem.
        widths: Width of each level, the finest first.
        attended: Per level, whether attention stands there.
    """

    stem: int
    widths: Sequence[int]
    attended: Sequence[bool]
    blocks: int
    heads: int
    head_width: int | None
    dropout: float
    groups: int
    eps: float
    scale_shift: bool
    padding: Padding

    def down(self) -> Iterator[Stage | Downsample]:
        """Yield the steps after the stem, each ending in a skip: stages, and a halving between levels."""
        channels, count = self.stem, 0
        for level, width in enumerate(self.widths):
            if level:
                yield Downsample(channels, padding=self.padding)
            for _ in range(self.blocks):
                yield self._stage(channels, width, f"down.{count}", self.attended[level])
                channels, count = width, count + 1

    def middle(self) -> Iterator[Stage]:
        """Yield the two stages between the ways, the first with attention."""
        width = self.widths[-1]
        yield self._stage(width, width, "mid.0", True)
        yield self._stage(width, width, "mid.1", False)

    def up(self) -> Iterator[Stage | Upsample]:
        """Yield the steps after the middle: one stage more per level, and a doubling between levels."""
        channels, count, skips = self.widths[-1], 0, self.skips()
        for level, width in reversed(list(enumerate(self.widths))):
            for _ in range(self.blocks + 1):
                yield self._stage(channels + skips.pop(), width, f"up.{count}", self.attended[level])
                channels, count = width, count + 1
            if level:
                yield Upsample(channels)

    def skips(self) -> list[int]:
        """Return the channels of each skip in the order of the way down: the stem, then every step."""
        skips = [self.stem]
        for level, width in enumerate(self.widths):
            skips += [skips[-1]] * (level > 0) + [width] * self.blocks
        return skips

    def norm(self, channels: int) -> GroupNorm:
        """Return a normalisation."""
        return GroupNorm(channels, groups=self.groups, eps=self.eps)

    def _stage(self, channels: int, out: int, tap: str, attended: bool) -> Stage:
        block = ResBlock(
            channels,
            out,
            tap=f"res.{tap}",
            dropout=self.dropout,
            scale_shift=self.scale_shift,
            groups=self.groups,
            eps=self.eps,
        )
        return Stage(block, self._attention(out) if attended else None)

    def _attention(self, channels: int) -> SelfAttention:
        heads = max(channels // self.head_width, 1) if self.head_width else self.heads
        if channels % (self.head_width or heads):
            raise IncompatibleParts(
                "attention heads cannot share the channels evenly",
                where="denoiser",
                expected=f"a divisor of {channels}",
                got=f"head_width {self.head_width}" if self.head_width else f"heads {heads}",
            )
        return SelfAttention(channels, heads=heads, groups=self.groups, eps=self.eps)
