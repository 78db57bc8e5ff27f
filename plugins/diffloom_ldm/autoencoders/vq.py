"""VQ: latent diffusion's autoencoder with a codebook, which is the first layer of its decoder (Rombach et al. 2022).

What is diffused is the latent before it is quantised, so `encode` gives continuous latents and `decode` takes them.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom.autoencoder import Posterior, Scale, ScaledAutoencoder
from diffloom.layout import Layout, Weld
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom_ldm.autoencoders.codebook import Codebook, CodebookLoss, Quantised
from diffloom_ldm.autoencoders.coder import Architecture, Decoder, Encoder
from diffloom_ldm.autoencoders.layouts import coder_layouts
from diffloom_nets import Conv2d

Count = Annotated[int, Field(gt=0)]


class VQ(ScaledAutoencoder):
    """Codes from a codebook, for images of any number of bands.

    Args:
        space: Of the images.
        channels: Width of the first level.
        multipliers: Width of each level, in multiples of `channels`; every level after the first halves the map.
        blocks: Residual blocks per level of the encoder; the decoder has one more.
        attention: Strides of the levels whose blocks are followed by attention: 8 in the paper's f = 8.
        middle: Whether attention stands in the middle; the paper's "noattn" has none.
        latent: Channels between the convolutions at the latents and both ways.
        embed: Width of a code, and channels of a latent; that of `latent` by default.
        codes: How many.
        beta: Weight of the commitment.
        loss: `correct` weighs the commitment with beta, `legacy` the pull on the codes, as released weights had it.
        decay: Let moving averages with this decay make the codes, instead of a gradient.
        restart: Steps after which an idle code becomes a latent of the batch.
        dropout: Probability, in the residual blocks.
        groups: Most groups of a normalisation.
        scale: What raw latents are multiplied with; null: measured after training.
        shift: What is taken off the raw latents first.
    """

    examples: ClassVar = (
        {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4, "codes": 16},
        {"channels": 8, "multipliers": (1, 2), "blocks": 1, "codes": 16, "embed": 2, "decay": 0.99, "restart": 10},
    )

    def __init__(
        self,
        *,
        space: Space,
        channels: Count = 128,
        multipliers: Annotated[Sequence[Count], Field(min_length=1)] = (1, 2, 4),
        blocks: Count = 2,
        attention: Sequence[Count] = (),
        middle: bool = True,
        latent: Count = 3,
        embed: Count | None = None,
        codes: Annotated[int, Field(gt=1)] = 8192,
        beta: Annotated[float, Field(gt=0)] = 0.25,
        loss: CodebookLoss = "correct",
        decay: Annotated[float, Field(gt=0, lt=1)] | None = None,
        restart: Count | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        groups: Count = 32,
        scale: Scale | None = 1.0,
        shift: Scale = 0.0,
    ) -> None:
        width = embed or latent
        super().__init__(channels=width, scale=scale, shift=shift)
        widths = [channels * m for m in multipliers]
        self.plan = Architecture(widths, blocks, attention, middle, dropout, groups)
        self.stride, self.reach, self.image_channels = self.plan.stride, self.plan.reach, space.channels
        self.encoder = Encoder(self.plan, space.channels, latent)
        self.quant = Conv2d(latent, width, 1)
        self.codebook = Codebook(codes, width, beta=beta, loss=loss, decay=decay, restart=restart)
        self.unquant = Conv2d(width, latent, 1)
        self.decoder = Decoder(self.plan, latent, space.channels)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution."""
        return cast(nn.Parameter, self.decoder.head.weight)

    def moments(self, x: Tensor) -> Tensor:
        """Return latents before they are quantised, (B, embed, H/stride, W/stride)."""
        return cast(Tensor, self.quant(self.encoder(x)))

    def posterior(self, moments: Tensor) -> Posterior:
        """Return the latents, as a code without variance."""
        return Posterior(moments)

    def picture(self, raw: Tensor) -> Tensor:
        """Return images (B, C, H, W) for latents (B, embed, H/stride, W/stride), quantised first."""
        return self._decoded(self.codebook.lookup(self.codebook.nearest(raw)))

    def quantised_picture(self, raw: Tensor, noise: Noise) -> tuple[Tensor, Quantised]:
        """Return images as `picture` does, through which gradients pass, and how latents became codes."""
        quantised = self.codebook(raw, noise)
        return self._decoded(quantised.values), quantised

    def constants(self) -> Mapping[str, Tensor]:
        """Return what files of other libraries lack: scale and shift, and how long codes have been idle."""
        idle = (
            {}
            if self.codebook.restart is None
            else {"codebook.idle": torch.zeros_like(self.codebook.idle, device="cpu")}
        )
        return {**super().constants(), **idle}

    def layouts(self) -> Sequence[Layout]:
        """Return those of diffusers' VQModel and of latent diffusion's own files; none with averaged codes."""
        if self.codebook.decay is not None:
            return ()
        codes = Weld("codebook.vectors", ("quantize.embedding.weight",))
        told = {"num_vq_embeddings": self.codebook.size, "vq_embed_dim": self.codebook.width}
        return coder_layouts(self, "VQModel", [codes], told)

    def _decoded(self, codes: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.unquant(codes)))
