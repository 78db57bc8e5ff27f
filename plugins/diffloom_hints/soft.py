"""SoftEdges: edges as strength, with the borders of things before the grain of their surfaces."""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffloom.errors import DataError
from diffloom_hints import hed
from diffloom_hints.filters import blurred, change
from diffloom_hints.hint import Bands, Copies, Hint, Positive, brightness, brought, chosen

_logger = logging.getLogger(__name__)
_SCALES = (1.0, 2.0, 4.0)
_COLOURS = 3


class SoftEdges(Hint):
    """Edges as strength, 0 … 1: by HED with given weights (Xie & Tu 2015), else by a classical stand-in.

    Nothing is downloaded. Without `weights` the map is the geometric mean, over blurs of 1, 2 and 4 pixels, of the
    gradient's length times the blur (Lindeberg 1998): what is an edge at every scale is the border of a thing, and
    grain is gone at the coarse one. That is softer and less selective than HED; the log says once that it is used,
    and `note` says it of the hint.

    HED sees three bands in colour, and any other number as their mean in grey.

    Args:
        weights: A safetensors file with HED's weights, ours or in the layout of pytorch-hed or of ControlNet's
            annotator; ~ and environment variables are replaced.
        gain: By what the classical map is multiplied before it is held at 1.
        key: Under which the hint is put.
        of: The image that it is drawn from, in [−1, 1].
        bands: Indices of the bands that count, from 0; all of them by default.
        copies: Of the map: 3 for weights that expect hints in colour.

    Raises:
        CheckpointError: The weights cannot be used.
        DataError: The image is smaller than 16 pixels, and HED is to see it.
    """

    examples: ClassVar[Sequence[dict[str, Any]]] = ({}, {"gain": 2.0, "copies": 3})

    def __init__(
        self,
        *,
        weights: str | None = None,
        gain: Positive = 3.0,
        key: str = "hint",
        of: str = "image",
        bands: Bands = (),
        copies: Copies = 1,
    ) -> None:
        super().__init__(key=key, of=of)
        self.gain, self.bands, self.copies = gain, bands, copies
        self.network = None if weights is None else hed.load(weights)
        self.note = "classical" if weights is None else "HED"

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return the copies of the map, (copies, H, W)."""
        image = chosen(brought(given), self.bands, self.where)
        found = self._classical(brightness(image)) if self.network is None else self._learned(image, self.network)
        return found.expand(self.copies, -1, -1).clone()

    def _classical(self, grey: Tensor) -> Tensor:
        _say_once()
        product = torch.ones_like(grey)
        for sigma in _SCALES:
            product = product * sigma * change(blurred(grey, sigma))
        return self.gain * product.pow(1 / len(_SCALES))

    def _learned(self, image: Tensor, network: hed.HED) -> Tensor:
        if min(image.shape[-2:]) < hed.SMALLEST:
            raise DataError(
                "the image is too small for HED, which halves it four times",
                where=self.where,
                expected=f"sides of at least {hed.SMALLEST}",
                got=" × ".join(map(str, image.shape[-2:])),
            )
        colour = image if len(image) == _COLOURS else brightness(image).expand(_COLOURS, -1, -1)
        with torch.no_grad():
            found: Tensor = network(colour[None])
        return found[0, 0]


@cache
def _say_once() -> None:
    _logger.warning("no weights of HED are named: soft edges are classical, gradients over three scales")
