"""Tiny: the architecture of TAESD, a small autoencoder distilled from Stable Diffusion's, without normalisations.

With its weights, latents are Stable Diffusion's, already scaled: the scale is 1. It has no posterior variance.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom.autoencoder import Posterior, Scale, ScaledAutoencoder
from diffloom.layout import Layout, Weld
from diffloom.space import Space
from diffloom_nets import Conv2d

Count = Annotated[int, Field(gt=0)]

_LIMIT = 3.0  # raw latents are bent into (−3, 3) before decoding


class TinyBlock(nn.Module):
    """relu(x + three convolutions with ReLU between them).

    Args:
        channels: Of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def forward(self, x: Tensor) -> Tensor:
        """Return the map, (B, C, H, W)."""
        return functional.relu(self.conv(x) + x)


class Tiny(ScaledAutoencoder):
    """TAESD for any number of bands and latent channels.

    Args:
        space: Of the images.
        channels: Width of every level.
        blocks: Residual blocks of each level of the encoder, the finest first; the decoder has them in reverse.
        latent: Channels of a latent.
        scale: What latents are multiplied with; 1 for TAESD's weights, null: measured after training.
        shift: What is taken off the latents first.
    """

    examples: ClassVar = ({"channels": 8, "blocks": (1, 1, 1)},)

    def __init__(
        self,
        *,
        space: Space,
        channels: Count = 64,
        blocks: Annotated[Sequence[Count], Field(min_length=1)] = (1, 3, 3, 3),
        latent: Count = 4,
        scale: Scale | None = 1.0,
        shift: Scale = 0.0,
    ) -> None:
        super().__init__(channels=latent, scale=scale, shift=shift)
        self.stride = 1 << (len(blocks) - 1)
        self.reach, self.image_channels = _reach(blocks), space.channels
        self.blocks, self.channels = tuple(blocks), channels
        self.encoder = nn.Sequential(*self._down(space.channels, latent))
        self.decoder = nn.Sequential(*self._up(space.channels, latent))

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution."""
        return cast(nn.Parameter, self.decoder[-1].weight)

    def moments(self, x: Tensor) -> Tensor:
        """Return the latents of images, (B, latent, H/stride, W/stride)."""
        return cast(Tensor, self.encoder((x + 1) / 2))

    def posterior(self, moments: Tensor) -> Posterior:
        """Return the latents, as a code without variance."""
        return Posterior(moments)

    def picture(self, raw: Tensor) -> Tensor:
        """Return images (B, C, H, W) for latents (B, latent, H/stride, W/stride)."""
        return cast(Tensor, self.decoder(torch.tanh(raw / _LIMIT) * _LIMIT)) * 2 - 1

    def layouts(self) -> Sequence[Layout]:
        """Return those of diffusers' AutoencoderTiny and of TAESD's own two files, read as a folder."""
        config = {
            "_class_name": "AutoencoderTiny",
            "in_channels": self.encoder[0].in_channels,
            "out_channels": self.decoder[-1].out_channels,
            "latent_channels": self.latent_channels,
            "encoder_block_out_channels": [self.channels] * len(self.blocks),
            "decoder_block_out_channels": [self.channels] * len(self.blocks),
            "num_encoder_blocks": list(self.blocks),
            "num_decoder_blocks": list(reversed(self.blocks)),
        }
        constants = self.constants()
        theirs = tuple(self._welds("layers.", 0))
        return [
            Layout("diffusers", theirs, constants=constants, config=config),
            Layout("taesd", tuple(self._welds("", 1)), constants=constants),
        ]

    def _welds(self, prefix: str, bend: int) -> Iterator[Weld]:
        """Yield the welds; `bend` is the number of layers before our decoder's first: the bend of the latents."""
        for way, layers, skipped in (("encoder", self.encoder, 0), ("decoder", self.decoder, bend)):
            for key in layers.state_dict():
                index, _, rest = key.partition(".")
                yield Weld(f"{way}.{key}", (f"{way}.{prefix}{int(index) + skipped}.{rest}",))

    def _down(self, channels: int, latent: int) -> Iterator[nn.Module]:
        width = self.channels
        for level, count in enumerate(self.blocks):
            if level:
                yield Conv2d(width, width, 3, stride=2, padding=1, bias=False)
            else:
                yield Conv2d(channels, width, 3, padding=1)
            yield from (TinyBlock(width) for _ in range(count))
        yield Conv2d(width, latent, 3, padding=1)

    def _up(self, channels: int, latent: int) -> Iterator[nn.Module]:
        width = self.channels
        yield Conv2d(latent, width, 3, padding=1)
        yield nn.ReLU()
        for level, count in reversed(list(enumerate(self.blocks))):
            yield from (TinyBlock(width) for _ in range(count))
            if level:
                yield nn.Upsample(scale_factor=2)
                yield Conv2d(width, width, 3, padding=1, bias=False)
        yield Conv2d(width, channels, 3, padding=1)


def _reach(blocks: Sequence[int]) -> int:
    """Return how many latents to each side the longer of both ways sees."""
    stride = 1 << (len(blocks) - 1)
    inner = sum((3 * count << level) + (1 << level) * (level > 0) for level, count in enumerate(blocks))
    return math.ceil((inner + 1 + stride) / stride)
