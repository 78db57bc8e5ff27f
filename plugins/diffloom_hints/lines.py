"""Lines: the straight segments of an image, as a wireframe."""

import torch
from torch import Tensor

from diffloom_hints.filters import blurred, gradient
from diffloom_hints.hint import Bands, Copies, DrawnHint, Positive
from diffloom_hints.segments import drawn, segments


class Lines(DrawnHint):
    """Straight segments, drawn as lines: roofs, roads, the borders of fields.

    In the place of the network of M-LSD stands a classical detector, `diffloom_hints.segments`: regions of like
    gradient (Burns, Hanson & Riseman 1986). It needs no weights, and no chance.

    Args:
        strength: Least change of brightness on a line; 1 is a step from black to white.
        length: Least length of a line, in pixels.
        straight: Largest standard deviation of a line's pixels across it, in pixels.
        sigma: Standard deviation of the blur before, in pixels.
        width: Of the lines as they are drawn, in pixels.
        key: Under which the hint is put.
        of: The image that it is drawn from, in [−1, 1].
        bands: Indices of the bands that count, from 0; all of them by default.
        copies: Of the map: 3 for weights that expect hints in colour.
    """

    def __init__(
        self,
        *,
        strength: Positive = 0.08,
        length: Positive = 10.0,
        straight: Positive = 1.3,
        sigma: Positive = 0.8,
        width: Positive = 1.5,
        key: str = "hint",
        of: str = "image",
        bands: Bands = (),
        copies: Copies = 1,
    ) -> None:
        super().__init__(key=key, of=of, bands=bands, copies=copies)
        self.strength, self.length, self.straight = strength, length, straight
        self.sigma, self.width = sigma, width

    def trace(self, grey: Tensor, generator: torch.Generator) -> Tensor:
        """Return the lines."""
        across, down = gradient(blurred(grey, self.sigma)).double().numpy()
        found = segments(across, down, strength=self.strength, length=self.length, width=self.straight)
        return torch.from_numpy(drawn(found, (grey.shape[0], grey.shape[1]), self.width))
