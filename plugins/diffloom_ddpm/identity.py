"""Identity: the autoencoder of pixel systems, in which latents are the images themselves."""

from torch import Tensor

from diffloom.autoencoder import Autoencoder, Posterior
from diffloom.space import Space


class Identity(Autoencoder):
    """encode(x) is x and decode(z) is z, so that no task has to ask whether a system works on pixels.

    Args:
        space: Of the images.
    """

    stride = 1
    bounded = True

    def __init__(self, *, space: Space) -> None:
        super().__init__()
        self.latent_channels = self.image_channels = space.channels

    def encode(self, x: Tensor) -> Posterior:
        """Return x itself, (B, C, H, W), as a code without variance."""
        return Posterior(x)

    def decode(self, z: Tensor) -> Tensor:
        """Return z itself, (B, C, H, W)."""
        return z
