"""Blurred: what is left of an image without its detail."""

import torch
from torch import Tensor

from diffloom_hints.filters import blurred
from diffloom_hints.hint import Bands, Hint, Positive, brought, chosen


class Blurred(Hint):
    """The image itself under a Gaussian blur, band by band: colours and large shapes, no detail.

    Args:
        sigma: Standard deviation, in pixels.
        key: Under which the hint is put.
        of: The image that is blurred, in [−1, 1].
        bands: Indices of the bands, from 0, in the order wanted; all of them by default.
    """

    def __init__(self, *, sigma: Positive = 6.0, key: str = "hint", of: str = "image", bands: Bands = ()) -> None:
        super().__init__(key=key, of=of)
        self.sigma, self.bands = sigma, bands

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return the blurred bands, (bands, H, W)."""
        return blurred(chosen(brought(given), self.bands, self.where), self.sigma)
