"""SemanticMap: tells a denoiser what every place shows, beside x_t (Rombach et al. 2022, appendix)."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom.autoencoder import Autoencoder
from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.errors import DataError, IncompatibleParts
from diffloom_nets import Conv2d


class SemanticMap(Conditioner):
    """Class numbers as one-hot maps, halved down to the latents' size, mixed to a few channels without a bias.

    Places of a number that is no class, such as 255 for "unknown", hold nothing. Nothing said is a map of zeros.

    Args:
        classes: How many classes there are.
        channels: That the denoiser is given; the paper's 182 → 3 has 546 parameters.
        key: Where a batch has the map.
        autoencoder: Tells how much smaller the latents are.

    Raises:
        IncompatibleParts: The latents' size is not made by halving.
    """

    examples: ClassVar = ({"classes": 2, "channels": 3},)

    def __init__(
        self,
        *,
        classes: Annotated[int, Field(gt=0)],
        channels: Annotated[int, Field(gt=0)] = 3,
        key: str = "mask",
        autoencoder: Autoencoder,
    ) -> None:
        super().__init__()
        stride = autoencoder.stride
        self.halvings = stride.bit_length() - 1
        if stride != 2**self.halvings:
            raise IncompatibleParts(
                "halving a map never gives the latents' size",
                where="semantic-map",
                expected="an autoencoder whose stride is a power of 2",
                got=str(stride),
            )
        self.kinds, self.key = classes, key
        self.needs = (key,)
        self.gives = Ports(concat=channels)
        self.mix = Conv2d(classes, channels, 1, bias=False)

    def encode(self, batch: Batch) -> Condition:
        """Return the channels beside x_t (B, channels, H/stride, W/stride).

        Args:
            batch: With the map, (B, H, W) or (B, 1, H, W), class numbers.
        """
        numbers = class_map(batch[self.key], self.key).to(self.mix.weight.device)
        present = numbers[:, None] == torch.arange(self.kinds, device=numbers.device)[:, None, None]
        shares = present.to(self.mix.weight.dtype)
        for _ in range(self.halvings):
            shares = functional.interpolate(shares, scale_factor=0.5, mode="bilinear")
        return Condition(concat=self.mix(shares))

    def null(self, code: Condition) -> Condition:
        """Return zeros: places of no class."""
        return Condition(concat=None if code.concat is None else torch.zeros_like(code.concat))


def class_map(value: Tensor, key: str) -> Tensor:
    """Return class numbers (B, H, W) int64 of a map (B, H, W) or (B, 1, H, W); DataError where it is none."""
    if value.dim() == 4 and value.shape[1] == 1:
        value = value[:, 0]
    if value.dim() != 3:
        raise DataError(
            "this is no map of classes", where=key, expected="(B, H, W) or (B, 1, H, W)", got=str(tuple(value.shape))
        )
    return value.long()
