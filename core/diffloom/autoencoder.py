"""Autoencoder: the map between images and what is diffused.

Law: `decode(encode(x).mode())` is close to x; latents leave `encode` already shifted and scaled,
z = (raw − shift) · scale, and `decode` undoes it, so everything between works on latents of unit size. Pixel systems
use the `identity` autoencoder: no task ever branches on it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffloom.layout import Layout
from diffloom.noise import Noise


@dataclass(frozen=True)
class Posterior:
    """q(z|x) = N(mean, exp(logvar)), one item per row; `logvar` is `None` for a deterministic code.

    The clamp of logvar to [−30, 20] is latent diffusion's convention.
    """

    mean: Tensor
    logvar: Tensor | None = None

    def mode(self) -> Tensor:
        """Return the most likely code, (B, c, *spatial)."""
        return self.mean

    def sample(self, noise: Noise) -> Tensor:
        """Return mean + std · ε with the item's own noise; the mean itself for a deterministic code."""
        if self.logvar is None:
            return self.mean
        return torch.addcmul(self.mean, self._clamped().mul(0.5).exp(), noise.normal(self.mean, "posterior"))

    def kl(self) -> Tensor:
        """Return KL(q ‖ N(0, I)) in nats per item, (B,); 0 for a deterministic code."""
        if self.logvar is None:
            return self.mean.new_zeros(self.mean.shape[0])
        logvar = self._clamped()
        terms = self.mean.square() + logvar.exp() - 1 - logvar
        return 0.5 * terms.flatten(1).sum(1)

    def _clamped(self) -> Tensor:
        if self.logvar is None:
            raise TypeError("a deterministic code has no variance")
        return self.logvar.clamp(-30.0, 20.0)


class Autoencoder(nn.Module, ABC):
    """Base of all autoencoders.

    Attributes:
        stride: How many times smaller a latent is than its image along each side.
        latent_channels: Channels of a latent.
        scale: z = (raw − shift) · scale.
        shift: See `scale`.
        bounded: Whether latents keep the image's value range (only the identity does).
    """

    stride: int
    latent_channels: int
    scale: float = 1.0
    shift: float = 0.0
    bounded: bool = False

    @abstractmethod
    def encode(self, x: Tensor) -> Posterior:
        """Return the posterior over scaled latents of images x (B, C, H, W) in [−1, 1]."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Return images (B, C, H, W) for scaled latents z (B, latent_channels, H/stride, W/stride)."""

    def layouts(self) -> Sequence[Layout]:
        """Return how other libraries store the weights of this part, as it is configured; none by default."""
        return ()
