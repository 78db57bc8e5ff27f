"""Canny and Sobel: where brightness changes, as thin lines or as strength."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from kornia.filters import canny
from pydantic import Field
from torch import Tensor

from diffloom_hints.filters import change
from diffloom_hints.hint import Bands, Copies, DrawnHint, Positive


class Canny(DrawnHint):
    """Thin lines, 0 or 1, along the edges of an image (Canny 1986).

    The image is blurred over 5 × 5 pixels; edges stronger than `high` are kept, and weaker ones down to `low` where
    they continue them. Strength is that of the Sobel filter without norm: 4 for a step from black to white,
    2.6 after a blur of 1.

    Args:
        low: Strength below which nothing is an edge.
        high: Strength above which everything is one.
        sigma: Standard deviation of the blur, in pixels.
        vary: Both thresholds are multiplied by one factor, drawn log-evenly between 1/vary and vary for every
            sample: a network that has seen few and many edges accepts hints of any density. 1 varies nothing.
        key: Under which the hint is put.
        of: The image that it is drawn from, in [−1, 1].
        bands: Indices of the bands that count, from 0; all of them by default.
        copies: Of the map: 3 for weights that expect hints in colour.

    Raises:
        ValueError: The thresholds are in the wrong order.
    """

    examples: ClassVar[Sequence[dict[str, Any]]] = ({}, {"vary": 2.0, "copies": 3})

    def __init__(
        self,
        *,
        low: Positive = 0.2,
        high: Positive = 0.4,
        sigma: Positive = 1.0,
        vary: Annotated[float, Field(ge=1)] = 1.0,
        key: str = "hint",
        of: str = "image",
        bands: Bands = (),
        copies: Copies = 1,
    ) -> None:
        if low > high:
            raise ValueError(f"the lower threshold, {low}, is above the higher one, {high}")
        super().__init__(key=key, of=of, bands=bands, copies=copies)
        self.low, self.high, self.sigma, self.vary = low, high, sigma, vary

    def trace(self, grey: Tensor, generator: torch.Generator) -> Tensor:
        """Return 1 on the edges and 0 elsewhere."""
        factor = 1.0
        if self.vary > 1:
            draw = float(torch.rand((), generator=generator, dtype=torch.float64))
            factor = math.exp((2 * draw - 1) * math.log(self.vary))
        low, high = self.low * factor, self.high * factor
        _, found = canny(grey[None, None], low, high, sigma=(self.sigma, self.sigma))
        edges: Tensor = found[0, 0]
        return edges


class Sobel(DrawnHint):
    """How much brightness changes: the length of the gradient by Sobel's filter.

    The length is 1 for a step from black to white, and is multiplied by `gain` and held at 1.

    Args:
        gain: By what the strength is multiplied; edges of photographs are weak.
        key: Under which the hint is put.
        of: The image that it is drawn from, in [−1, 1].
        bands: Indices of the bands that count, from 0; all of them by default.
        copies: Of the map: 3 for weights that expect hints in colour.
    """

    def __init__(
        self, *, gain: Positive = 2.0, key: str = "hint", of: str = "image", bands: Bands = (), copies: Copies = 1
    ) -> None:
        super().__init__(key=key, of=of, bands=bands, copies=copies)
        self.gain = gain

    def trace(self, grey: Tensor, generator: torch.Generator) -> Tensor:
        """Return the strength; 0 where nothing changes."""
        return self.gain * change(grey)
