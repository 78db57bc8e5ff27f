"""Encoder and decoder of latent diffusion's autoencoders (Esser et al. 2021; Rombach et al. 2022, appendix).

Levels halve the map. The encoder has `blocks` residual blocks per level, the decoder one more; residual–attention–
residual stand in the middle of both. Blocks know no time, normalisations have eps 1e-6, there is no final tanh.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from diffloom_nets import Conv2d, Downsample, GroupNorm, SelfAttention, Upsample, group_count

Edit = Callable[[int, Tensor], Tensor]


class Block(nn.Module):
    """skip(x) + conv(silu(norm(conv(silu(norm(x)))))).

    Args:
        channels: Of the input.
        out: Of the output; a 1×1 convolution carries the skip where they differ.
        dropout: Probability, before the last convolution.
        groups: Most groups of the normalisations.
    """

    def __init__(self, channels: int, out: int, *, dropout: float = 0.0, groups: int = 32) -> None:
        super().__init__()
        self.norm1 = GroupNorm(channels, groups=groups)
        self.conv1 = Conv2d(channels, out, 3, padding=1)
        self.norm2 = GroupNorm(out, groups=groups)
        self.dropout = dropout
        self.conv2 = Conv2d(out, out, 3, padding=1)
        self.skip = Conv2d(channels, out, 1) if channels != out else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the map, (B, channels, H, W) → (B, out, H, W)."""
        h = self.norm2(self.conv1(self.norm1(x), silu=True))
        if self.training and self.dropout:
            h = self.conv2(functional.dropout(functional.silu(h), self.dropout))
        else:
            h = self.conv2(h, silu=True)
        return cast(Tensor, h + (x if self.skip is None else self.skip(x)))


class Stage(nn.Module):
    """A residual block, with attention after it where there is some."""

    def __init__(self, block: Block, attention: SelfAttention | None = None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, h: Tensor) -> Tensor:
        """Return the map, (B, C, H, W) → (B, out, H, W)."""
        h = self.block(h)
        return h if self.attention is None else self.attention(h)


@dataclass(frozen=True)
class Architecture:
    """What both ways share.

    Attributes:
        widths: Channels of each level, the finest first.
        blocks: Residual blocks per level of the encoder; the decoder has one more.
        attention: Strides (1, 2, 4, …) of the levels whose blocks are followed by attention.
        middle: Whether attention stands in the middle.
        dropout: Probability, in the residual blocks.
        groups: Most groups of a normalisation.
    """

    widths: Sequence[int]
    blocks: int = 2
    attention: Sequence[int] = ()
    middle: bool = True
    dropout: float = 0.0
    groups: int = 32

    @property
    def stride(self) -> int:
        """How many times smaller a latent is than its image."""
        return 1 << (len(self.widths) - 1)

    @property
    def reach(self) -> int:
        """How many latents to each side the longer of both ways sees, normalisations and attention aside.

        A 3×3 convolution sees one pixel to each side on its own level, which is 2^(level − deepest) latents.
        """
        deepest = len(self.widths) - 1
        pixels = 1.0  # of the image: the encoder's first convolution, or the decoder's last
        encoder = decoder = pixels
        for level in range(deepest + 1):
            size = float(1 << level)
            encoder += size * 2 * self.blocks + (size * 2 if level < deepest else 0)
            decoder += size * 2 * (self.blocks + 1) + (size if level < deepest else 0)
        middle = 5 * self.stride  # two blocks, and the first or last convolution at the latents
        return -(-int(max(encoder, decoder) + middle) // self.stride)

    def uniform_groups(self) -> bool:
        """Return whether all normalisations have the same number of groups, as other libraries suppose."""
        return len({group_count(width, self.groups) for width in self.widths}) == 1

    def norm(self, width: int) -> GroupNorm:
        """Return a normalisation."""
        return GroupNorm(width, groups=self.groups)

    def stage(self, channels: int, level: int) -> Stage:
        """Return a stage that ends at a level's width."""
        return self._stage(channels, self.widths[level], (1 << level) in self.attention)

    def centre(self) -> Iterator[Stage]:
        """Yield the two stages in the middle."""
        width = self.widths[-1]
        yield self._stage(width, width, self.middle)
        yield self._stage(width, width, False)

    def _stage(self, channels: int, width: int, attended: bool) -> Stage:
        block = Block(channels, width, dropout=self.dropout, groups=self.groups)
        return Stage(block, SelfAttention(width, groups=self.groups) if attended else None)


class Encoder(nn.Module):
    """From images to moments of latents.

    Args:
        plan: The architecture.
        channels: Of the images.
        out: Of the moments.
    """

    def __init__(self, plan: Architecture, channels: int, out: int) -> None:
        super().__init__()
        self.stem = Conv2d(channels, plan.widths[0], 3, padding=1)
        self.down = nn.ModuleList(self._down(plan))
        self.middle = nn.ModuleList(plan.centre())
        self.norm = plan.norm(plan.widths[-1])
        self.head = Conv2d(plan.widths[-1], out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the moments, (B, C, H, W) → (B, out, H/stride, W/stride)."""
        h = self.features(x)[-1]
        for step in self.middle:
            h = step(h)
        return cast(Tensor, self.head(self.norm(h), silu=True))

    def features(self, x: Tensor) -> list[Tensor]:
        """Return what each level makes of images, before the map is halved: the finest first."""
        h, maps = self.stem(x), []
        for step in self.down:
            if isinstance(step, Downsample):
                maps.append(h)
            h = step(h)
        return [*maps, h]

    def _down(self, plan: Architecture) -> Iterator[nn.Module]:
        channels = plan.widths[0]
        for level, width in enumerate(plan.widths):
            for _ in range(plan.blocks):
                yield plan.stage(channels, level)
                channels = width
            if level + 1 < len(plan.widths):
                yield Downsample(channels, padding="same")


class Decoder(nn.Module):
    """From latents to images.

    Args:
        plan: The architecture.
        channels: Of the latents.
        out: Of the images.
    """

    def __init__(self, plan: Architecture, channels: int, out: int) -> None:
        super().__init__()
        self.stem = Conv2d(channels, plan.widths[-1], 3, padding=1)
        self.middle = nn.ModuleList(plan.centre())
        self.up = nn.ModuleList(self._up(plan))
        self.levels = len(plan.widths)
        self.norm = plan.norm(plan.widths[0])
        self.head = Conv2d(plan.widths[0], out, 3, padding=1)

    def forward(self, z: Tensor, edit: Edit | None = None) -> Tensor:
        """Return the images, (B, c, h, w) → (B, out, h · stride, w · stride).

        Args:
            z: Latents, not scaled.
            edit: `edit(level, h)` gives the map that takes the place of what a level, 0 the finest, made.
        """
        h, level = self.stem(z), self.levels - 1
        for step in (*self.middle, *self.up):
            if isinstance(step, Upsample):
                h, level = h if edit is None else edit(level, h), level - 1
            h = step(h)
        h = h if edit is None else edit(level, h)
        return cast(Tensor, self.head(self.norm(h), silu=True))

    def _up(self, plan: Architecture) -> Iterator[nn.Module]:
        channels = plan.widths[-1]
        for level in reversed(range(len(plan.widths))):
            for _ in range(plan.blocks + 1):
                yield plan.stage(channels, level)
                channels = plan.widths[level]
            if level:
                yield Upsample(channels)
