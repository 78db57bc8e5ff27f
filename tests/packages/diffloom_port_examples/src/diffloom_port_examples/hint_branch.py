"""HintBranch: the edges of an image, added to what the decoder receives, as ControlNet does (arXiv 2302.05543)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom.condition import Affine, Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser


class HintBranch(Conditioner):
    """Shifts every `skip.*` tap by a convolution of the hint, zero at the start.

    Args:
        denoiser: Whose skips are shifted.
        key: Where the batch keeps the image, (B, C, H, W).
        width: Channels of the hint's features.
    """

    def __init__(self, *, denoiser: Denoiser, key: str = "image", width: Annotated[int, Field(gt=0)] = 16) -> None:
        super().__init__()
        self.key = key
        self.needs = (key,)
        self.skips = {tap.name: tap.stride for tap in denoiser.taps if tap.name.startswith("skip.")}
        widths = {tap.name: tap.channels for tap in denoiser.taps if tap.name in self.skips}
        self.gives = Ports(affine=widths)
        self.features = nn.Conv2d(1, width, 3, padding=1)
        self.shifts = nn.ModuleList(nn.Conv2d(width, channels, 1) for channels in widths.values())
        for parameter in self.shifts.parameters():
            nn.init.zeros_(parameter)

    def encode(self, batch: Batch) -> Condition:
        """Return the shifts of each skip for the edges of `batch[key]`."""
        features = functional.silu(self.features(edges(batch[self.key])))
        maps = {stride: functional.avg_pool2d(features, stride) for stride in set(self.skips.values())}
        shifts = zip(self.skips.items(), self.shifts, strict=True)
        return Condition(affine={name: Affine(shift=shift(maps[stride])) for (name, stride), shift in shifts})

    def null(self, code: Condition) -> Condition:
        """Return shifts by nothing."""
        return Condition(affine={name: Affine(shift=_zeros(edit.shift)) for name, edit in code.affine.items()})


def edges(image: Tensor) -> Tensor:
    """Return how steep the mean of the channels is, (B, 1, H, W), for an image (B, C, H, W)."""
    grey = functional.pad(image.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    across, down = grey[..., :-1, 1:] - grey[..., :-1, :-1], grey[..., 1:, :-1] - grey[..., :-1, :-1]
    return torch.hypot(across, down)


def _zeros(shift: Tensor | None) -> Tensor | None:
    return None if shift is None else torch.zeros_like(shift)
