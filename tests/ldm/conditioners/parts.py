"""Stand-ins for what conditioners are built beside."""

from typing import Any

from torch import Tensor
from torch.nn import functional

from diffloom.autoencoder import Autoencoder, Posterior
from diffloom.condition import Ports
from diffloom.space import Space
from diffloom.testing.standins import TinyDenoiser

SPACE = Space(3, (16, 16))


def denoiser(**ports: Any) -> TinyDenoiser:
    """A denoiser with the given ports."""
    return TinyDenoiser(space=SPACE, ports=Ports(**ports))


class Quarter(Autoencoder):
    """Latents are means over 4 × 4 pixels, times a scale; images are those means repeated."""

    stride, latent_channels, size = 4, 3, 0.5

    def encode(self, x: Tensor) -> Posterior:
        return Posterior(functional.avg_pool2d(x, 4) * self.size)

    def decode(self, z: Tensor) -> Tensor:
        return functional.interpolate(z / self.size, scale_factor=4)
