"""Mask: tells a denoiser what of an image to fill in, and shows it the rest (Rombach et al. 2022, inpainting).

Two conventions exist, and pretrained weights know only one of them. With m = 1 where pixels are to be made:

`ldm`  [E(masked image), 2m − 1], the hole black (−1);        `sd`  [m, E(masked image)], the hole grey (0).

The mask is brought to the latents' size by taking nearest pixels, E is the most likely code, scaled as latents are.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from diffloom.autoencoder import Autoencoder
from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.errors import DataError
from diffloom_ldm.conditioners.ports import Borrowed

Convention = Literal["ldm", "sd"]


@dataclass(frozen=True)
class Order:
    """How a convention puts mask and image together.

    Attributes:
        fill: What the hole holds, in [−1, 1].
        low: What a mask of 0 becomes.
        first: Whether the mask's channel stands before the image's.
    """

    fill: float
    low: float
    first: bool


ORDERS = {"ldm": Order(fill=-1.0, low=-1.0, first=False), "sd": Order(fill=0.0, low=0.0, first=True)}


class Mask(Conditioner):
    """The mask and what is outside of it, on the port beside x_t.

    Nothing said is a hole of the whole image, with zeros for its latents.

    Args:
        convention: `sd` (Stable Diffusion's inpainting weights) or `ldm` (latent diffusion's).
        image: Where a batch has the image.
        key: Where it has the mask.
        autoencoder: Encodes the masked image; neither trained nor saved here.
    """

    def __init__(
        self, *, convention: Convention = "sd", image: str = "image", key: str = "mask", autoencoder: Autoencoder
    ) -> None:
        super().__init__()
        self.order = ORDERS[convention]
        self.image, self.key = image, key
        self.needs = (image, key)
        self.gives = Ports(concat=autoencoder.latent_channels + 1)
        self._borrowed = Borrowed(autoencoder)

    def encode(self, batch: Batch) -> Condition:
        """Return the channels beside x_t (B, latent channels + 1, *latent size).

        Args:
            batch: With the image (B, C, H, W) in [−1, 1], whose hidden pixels are never looked at, and the mask
                (B, 1, H, W) or (B, H, W), 1 where they are hidden.
        """
        image = batch[self.image]
        mask = hole(batch[self.key], image, self.key)
        return Condition(concat=self._beside(hidden(image, mask, self.order.fill), mask))

    def null(self, code: Condition) -> Condition:
        """Return what is told where everything is hidden."""
        if code.concat is None:
            return code
        beside = torch.zeros_like(code.concat)
        beside[:, 0 if self.order.first else -1] = 1
        return Condition(concat=beside)

    def _beside(self, image: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            latent = self._borrowed.autoencoder.encode(image).mode()
        small = functional.interpolate(mask, latent.shape[2:], mode="nearest").to(latent.dtype)
        shown = small * (1 - self.order.low) + self.order.low
        return torch.cat([shown, latent] if self.order.first else [latent, shown], 1)


def hole(mask: Tensor, image: Tensor, key: str = "mask") -> Tensor:
    """Return a mask as numbers 0 and 1, (B, 1, H, W), 1 where pixels are hidden.

    Args:
        mask: (B, 1, H, W) or (B, H, W), any type; above ½ is hidden.
        image: The image that it belongs to, (B, C, H, W).
        key: Where it came from, for the error.

    Raises:
        DataError: It is not as large as the image.
    """
    mask = mask[:, None] if mask.dim() == 3 else mask
    if mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[2:] != image.shape[2:]:
        raise DataError(
            "the mask does not lie on the image",
            where=key,
            expected=f"(B, 1, {image.shape[2]}, {image.shape[3]})",
            got=str(tuple(mask.shape)),
        )
    return (mask > 0.5).to(image.device, image.dtype)


def hidden(image: Tensor, mask: Tensor, fill: float) -> Tensor:
    """Return the image (B, C, H, W) with `fill` where the mask (B, 1, H, W) is 1."""
    return image * (1 - mask) + fill * mask
