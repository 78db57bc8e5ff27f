"""What every autoencoder must do."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from diffloom.autoencoder import Autoencoder, Posterior
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom.testing.contracts.base import Contract, Make, applies, close, equal, is_a, require


class AutoencoderContract(Contract):
    """An autoencoder maps images to smaller latents and back."""

    kind: ClassVar[str] = "autoencoder"

    def check_shapes(self, make: Make) -> None:
        """Latents are (B, latent_channels, H/stride, W/stride); decoding gives the image's shape, finite."""
        part, x = self._part(make)
        with torch.no_grad():
            code = part.encode(x)
            is_a(code, Posterior, "what encode returns")
            z = code.mode()
            again = part.decode(z)
        wanted = (2, part.latent_channels, *(side // part.stride for side in x.shape[2:]))
        require(tuple(z.shape) == wanted, f"latents are {tuple(z.shape)}, declared {wanted}")
        require(again.shape == x.shape, f"images come back as {tuple(again.shape)}")
        require(bool(again.isfinite().all()), "what comes back is not finite")

    def check_draws_depend_on_seeds_alone(self, make: Make) -> None:
        """Equal seeds give equal latents, and an item's draw does not depend on its batch."""
        part, x = self._part(make)
        with torch.no_grad():
            one, other = (part.encode(x).sample(Noise([3, 4])) for _ in range(2))
            alone = part.encode(x[1:]).sample(Noise([4]))
        equal(one, other, "two draws with equal seeds")
        close(one[1:], alone, 1e-4, "item 1")

    def check_divergence(self, make: Make) -> None:
        """KL(q ‖ N(0, I)) is one number per item, not negative."""
        part, x = self._part(make)
        with torch.no_grad():
            kl = part.encode(x).kl()
        require(tuple(kl.shape) == (2,), f"its shape is {tuple(kl.shape)}")
        require(bool((kl >= 0).all()), "it is negative")

    def check_bounded_latents_stay_in_range(self, make: Make) -> None:
        """Latents that are declared bounded keep the images' range."""
        part, x = self._part(make)
        applies(part.bounded, "its latents are not bounded")
        with torch.no_grad():
            require(float(part.encode(x).mode().abs().max()) <= 1, "a latent is out of range")

    def _part(self, make: Make) -> tuple[Autoencoder, Tensor]:
        space: Any = self.provided[Space]
        part: Autoencoder = make().eval()
        size = tuple(-(-side // part.stride) * part.stride for side in space.size)
        x = torch.rand(2, space.channels, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return part, x
