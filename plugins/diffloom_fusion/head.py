"""FusionHead: from a denoiser's feature maps to one image, coarse to fine (Yue et al. 2023, section III-C).

Of every level the maps of all times are joined and narrowed, the level before is added, attended, and doubled in size.
With the paper's widths, 1024, 1024, 512, 256, 128, and three times it has 46,405,703 parameters.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEAK = 0.2
_LAST = 64


class Gate(nn.Module):
    """scSE: each channel weighted by what it is on the whole, plus each pixel by what it is (Roy et al. 2018).

    Args:
        channels: Of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(channels // 2, 1)
        self.channel = nn.Sequential(nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels))
        self.pixel = nn.Conv2d(channels, 1, 1)

    def forward(self, h: Tensor) -> Tensor:
        """Return h (B, C, H, W) times the sum of both gates; with weights of zero that is h itself."""
        of_channel = self.channel(h.mean((2, 3))).sigmoid()[:, :, None, None]
        gated: Tensor = h * (of_channel + self.pixel(h).sigmoid())
        return gated


class FusionHead(nn.Module):
    """Fuses feature maps of several levels and times.

    Args:
        widths: Channels of each level's maps, the coarsest first.
        times: How many maps there are of each level.
        out_channels: Of the answer.
        finest: Whether the answer is made of the finest level too. The published code leaves its maps out, and their
            weights without any gradient; that is `False`.
    """

    def __init__(self, *, widths: Sequence[int], times: int, out_channels: int, finest: bool = True) -> None:
        super().__init__()
        self.finest = finest
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(times * width, width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
            )
            for width in widths
        )
        self.attention = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, after, 3, padding=1), nn.ReLU(), Gate(after))
            for width, after in pairwise(widths)
        )
        last = min(_LAST, widths[-1])
        self.out = nn.Sequential(
            nn.Conv2d(widths[-1], last, 3, padding=1), nn.LeakyReLU(_LEAK), nn.Conv2d(last, out_channels, 3, padding=1)
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the answer (B, out_channels, H, W), without limits, of maps (B, times · width, h, w), coarsest first.

        The answer has the size of the finest maps.
        """
        carried: Tensor | None = None
        for number, (block, maps) in enumerate(zip(self.blocks, levels, strict=True)):
            h = block(maps)
            if carried is not None:
                h = h + carried if self.finest or number < len(levels) - 1 else carried
            if number < len(self.attention):
                size = levels[number + 1].shape[-2:]
                h = functional.interpolate(self.attention[number](h), size=size, mode="bilinear", align_corners=True)
            carried = h
        answer: Tensor = self.out(torch.empty(0) if carried is None else carried)
        return answer
