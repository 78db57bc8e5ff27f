"""KL: latent diffusion's autoencoder with a Gaussian code, held near N(0, I) by a tiny weight (Rombach et al. 2022).

`KL(latent=4)` on RGB is Stable Diffusion's: 83,653,863 parameters, of which the encoder has 34,163,592.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, cast

from pydantic import Field
from torch import Tensor, nn

from diffloom.autoencoder import Posterior, Scale, ScaledAutoencoder
from diffloom.layout import Layout
from diffloom.space import Space
from diffloom_ldm.autoencoders.coder import Architecture, Decoder, Edit, Encoder
from diffloom_ldm.autoencoders.layouts import coder_layouts
from diffloom_nets import Conv2d

Count = Annotated[int, Field(gt=0)]


class KL(ScaledAutoencoder):
    """Gaussian codes of any number of channels, for images of any number of bands.

    Args:
        space: Of the images.
        channels: Width of the first level.
        multipliers: Width of each level, in multiples of `channels`; every level after the first halves the map.
        blocks: Residual blocks per level of the encoder; the decoder has one more.
        attention: Strides of the levels whose blocks are followed by attention: 16 in the paper's f = 16.
        middle: Whether attention stands in the middle.
        latent: Channels of a latent.
        dropout: Probability, in the residual blocks.
        groups: Most groups of a normalisation.
        scale: What raw latents are multiplied with: 0.18215 for Stable Diffusion's weights. By default it is measured
            after training and saved with the weights.
        shift: What is taken off the raw latents first.
    """

    examples: ClassVar = (
        {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4, "scale": 0.5},
        {"channels": 8, "multipliers": (1, 1, 2), "blocks": 1, "attention": (4,), "latent": 2, "middle": False},
    )

    def __init__(
        self,
        *,
        space: Space,
        channels: Count = 128,
        multipliers: Annotated[Sequence[Count], Field(min_length=1)] = (1, 2, 4, 4),
        blocks: Count = 2,
        attention: Sequence[Count] = (),
        middle: bool = True,
        latent: Count = 4,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        groups: Count = 32,
        scale: Scale | None = None,
        shift: Scale = 0.0,
    ) -> None:
        super().__init__(channels=latent, scale=scale, shift=shift)
        widths = [channels * m for m in multipliers]
        self.plan = Architecture(widths, blocks, attention, middle, dropout, groups)
        self.stride, self.reach, self.image_channels = self.plan.stride, self.plan.reach, space.channels
        self.encoder = Encoder(self.plan, space.channels, 2 * latent)
        self.quant = Conv2d(2 * latent, 2 * latent, 1)
        self.unquant = Conv2d(latent, latent, 1)
        self.decoder = Decoder(self.plan, latent, space.channels)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution."""
        return cast(nn.Parameter, self.decoder.head.weight)

    def moments(self, x: Tensor) -> Tensor:
        """Return mean and log-variance, (B, 2 · latent, H/stride, W/stride)."""
        return cast(Tensor, self.quant(self.encoder(x)))

    def posterior(self, moments: Tensor) -> Posterior:
        """Return the posterior whose mean and log-variance are the halves of `moments`."""
        return Posterior(*moments.chunk(2, 1))

    def picture(self, raw: Tensor, edit: Edit | None = None) -> Tensor:
        """Return images (B, C, H, W) for raw latents (B, latent, H/stride, W/stride); see `Decoder` for `edit`."""
        return cast(Tensor, self.decoder(self.unquant(raw), edit))

    def layouts(self) -> Sequence[Layout]:
        """Return those of diffusers' AutoencoderKL and of latent diffusion's own files."""
        return coder_layouts(self, "AutoencoderKL")
