"""Brightness: asks for an image of a given mean brightness, through the denoiser's vector port.

Law: an item's vector depends on its own image alone; the null is one learned vector, "any brightness".
"""

import torch
from torch import Tensor, nn

from diffloom import Condition, Conditioner, Denoiser, Ports
from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts


class Brightness(Conditioner):
    """The mean of an image, as a vector that is added to the denoiser's time embedding.

    Args:
        denoiser: Whose vector port is filled; the recipe's system gives it.

    Raises:
        IncompatibleParts: The denoiser has no vector port.
    """

    needs = ("image",)

    def __init__(self, *, denoiser: Denoiser) -> None:
        super().__init__()
        width = denoiser.ports.vector
        if not width:
            raise IncompatibleParts(
                "the denoiser has no vector port",
                where=type(self).__name__,
                expected="a port to add the brightness to",
                remedy="choose a denoiser with a vector port",
            )
        self.gives = Ports(vector=width)
        self.any = nn.Parameter(torch.zeros(width))
        self.network = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))

    def encode(self, batch: Batch) -> Condition:
        """Return each item's vector, (B, width).

        Args:
            batch: With `image` (B, C, H, W) in [−1, 1].
        """
        images: Tensor = batch["image"]
        return Condition(vector=self.network(images.flatten(1).mean(1, keepdim=True)))

    def null(self, code: Condition) -> Condition:
        """Return the vector of "any brightness" for each item, (B, width)."""
        return Condition(vector=None if code.vector is None else self.any.to(code.vector).expand_as(code.vector))
