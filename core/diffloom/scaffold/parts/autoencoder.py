"""Haar: the wavelet transform of 2×2 blocks as an autoencoder that loses nothing (Haar 1910).

Law: `decode(encode(x).mode())` is x up to rounding, and the transform keeps lengths: ‖z‖ = scale · ‖x‖.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom import Autoencoder, Posterior, Space

_SIGNS = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


class Haar(Autoencoder):
    """Each 2×2 block of a channel becomes four channels: its mean, and how it changes across, down and both.

    Args:
        space: Of the images; the recipe's system gives it.
        scale: What latents are multiplied with, so that they have about unit size.
    """

    stride = 2
    signs: Tensor

    def __init__(self, *, space: Space, scale: Annotated[float, Field(gt=0)] = 0.7) -> None:
        super().__init__()
        self.latent_channels = 4 * space.channels
        self.scale = scale
        self.register_buffer("signs", torch.tensor(_SIGNS, dtype=torch.float32) / 2, persistent=False)

    def encode(self, x: Tensor) -> Posterior:
        """Return the coefficients of x (B, C, H, W), (B, 4 C, H/2, W/2), as a code without variance."""
        blocks = functional.pixel_unshuffle(x, 2).view(x.shape[0], -1, 4, x.shape[2] // 2, x.shape[3] // 2)
        return Posterior(torch.einsum("ij,bcjhw->bcihw", self.signs.to(x.dtype), blocks).flatten(1, 2) * self.scale)

    def decode(self, z: Tensor) -> Tensor:
        """Return the image (B, C, H, W) of coefficients (B, 4 C, H/2, W/2)."""
        coefficients = z.div(self.scale).view(z.shape[0], -1, 4, *z.shape[2:])
        blocks = torch.einsum("ij,bcihw->bcjhw", self.signs.to(z.dtype), coefficients)
        return functional.pixel_shuffle(blocks.flatten(1, 2), 2)
