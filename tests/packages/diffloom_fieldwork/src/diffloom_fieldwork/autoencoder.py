"""Blocks of pixels as their cosine coefficients."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom import Autoencoder, Posterior, Space


class BlockDCT(Autoencoder):
    """Each block of each band becomes its DCT-II coefficients, orthonormal; nothing is lost.

    Args:
        space: Of the images.
        block: Height and width of a block.
        scale: What coefficients are multiplied with.
    """

    basis: Tensor

    def __init__(
        self,
        *,
        space: Space,
        block: Annotated[int, Field(gt=1)] = 2,
        scale: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__()
        self.stride, self.latent_channels = block, block**2 * space.channels
        self.scale = scale
        n = torch.arange(block, dtype=torch.float64)
        one = torch.cos(math.pi / block * (n + 0.5) * n[:, None]) * (2 / block) ** 0.5
        one[0] /= 2**0.5
        self.register_buffer("basis", torch.kron(one, one).float(), persistent=False)

    def encode(self, x: Tensor) -> Posterior:
        """Return the coefficients (B, block² C, H/block, W/block) of images (B, C, H, W)."""
        folded = functional.pixel_unshuffle(x, self.stride)
        return Posterior(
            torch.einsum("ij,bcjhw->bcihw", self.basis.to(x), self._blocks(folded)).flatten(1, 2) * self.scale
        )

    def decode(self, z: Tensor) -> Tensor:
        """Return the images of coefficients."""
        folded = self._blocks(z / self.scale)
        return functional.pixel_shuffle(
            torch.einsum("ij,bcihw->bcjhw", self.basis.to(z), folded).flatten(1, 2), self.stride
        )

    def _blocks(self, folded: Tensor) -> Tensor:
        """Return (B, C, block², h, w) for (B, C block², h, w)."""
        return folded.view(len(folded), -1, self.stride**2, *folded.shape[2:])
