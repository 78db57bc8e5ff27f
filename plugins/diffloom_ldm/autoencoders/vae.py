"""VAE: a small variational autoencoder, from which images are drawn by its prior alone (Kingma & Welling 2014).

Two strided convolutions and two linear layers each way. On 28×28 images of one channel it is the usual reference:
846,728 + 844,641 parameters.
"""

import math
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom.autoencoder import Posterior, Scale, ScaledAutoencoder
from diffloom.errors import IncompatibleParts
from diffloom.space import Space

Count = Annotated[int, Field(gt=0)]

_LEAST = 4


class VAE(ScaledAutoencoder):
    """A vector of `latent` numbers per image, as a map of 1×1; images that are not square have one per square.

    Args:
        space: Of the images; any size of at least 4.
        channels: Of the first convolution; the second has twice as many.
        hidden: Width of the linear layers between convolutions and code.
        latent: Numbers of a code.
        output: `linear`, or `sigmoid`, which holds images to (−1, 1), for a likelihood of whites and blacks.
        scale: What latents are multiplied with; the prior holds them near 1. Null: measured after training.
        shift: What is taken off the latents first.

    Raises:
        IncompatibleParts: A side is shorter than 4.
    """

    examples: ClassVar = ({"channels": 4, "hidden": 16, "latent": 3}, {"latent": 2, "output": "sigmoid"})

    def __init__(
        self,
        *,
        space: Space,
        channels: Count = 32,
        hidden: Count = 256,
        latent: Count = 20,
        output: Literal["linear", "sigmoid"] = "linear",
        scale: Scale | None = 1.0,
        shift: Scale = 0.0,
    ) -> None:
        super().__init__(channels=latent, scale=scale, shift=shift)
        if min(space.size) < _LEAST or len(space.size) != 2:
            raise IncompatibleParts(
                "the images are too small to be halved twice",
                where="autoencoder",
                expected=f"two sides of at least {_LEAST}",
                got=" × ".join(map(str, space.size)),
            )
        self.stride = math.gcd(*space.size)
        self.grid = tuple(side // self.stride for side in space.size)
        self.saturated, self.image_channels = output == "sigmoid", space.channels
        halves = [space.size, tuple(side // 2 for side in space.size), tuple(side // 4 for side in space.size)]
        self.inner = (2 * channels, *halves[2])
        flat, codes = math.prod(self.inner), latent * math.prod(self.grid)
        odd = [(size[0] % 2, size[1] % 2) for size in halves]
        self.encoder = nn.Sequential(
            nn.Conv2d(space.channels, channels, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(flat, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 2 * codes),
        )
        self.decoder = nn.Sequential(
            nn.Linear(codes, hidden),
            nn.SiLU(),
            nn.Linear(hidden, flat),
            nn.SiLU(),
            nn.Unflatten(1, self.inner),
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1, output_padding=odd[1]),
            nn.SiLU(),
            nn.ConvTranspose2d(channels, space.channels, 4, stride=2, padding=1, output_padding=odd[0]),
        )

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution."""
        return cast(nn.Parameter, self.decoder[-1].weight)

    def moments(self, x: Tensor) -> Tensor:
        """Return mean and log-variance, (B, 2 · latent, *grid)."""
        flat = cast(Tensor, self.encoder(x))
        return flat.view(len(flat), -1, *self.grid)

    def posterior(self, moments: Tensor) -> Posterior:
        """Return the posterior whose mean and log-variance are the halves of `moments`."""
        return Posterior(*moments.chunk(2, 1))

    def picture(self, raw: Tensor) -> Tensor:
        """Return the mean of p(x|z), (B, C, H, W), for codes (B, latent, *grid)."""
        image = cast(Tensor, self.decoder(raw.flatten(1)))
        return torch.tanh(image / 2) if self.saturated else image
