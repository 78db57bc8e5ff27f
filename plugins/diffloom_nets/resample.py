"""Halving and doubling of feature maps."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from diffloom_nets.conv import Conv2d, doubled, xavier

Padding = Literal["same", "symmetric"]
Resample = Literal["halve", "double"]


def resampled(h: Tensor, how: Resample) -> Tensor:
    """Return a map (B, C, H, W) halved by averaging 2×2 pixels, or doubled by repeating each."""
    return functional.avg_pool2d(h, 2) if how == "halve" else doubled(h)


class Downsample(nn.Module):
    """3×3 convolution with stride 2.

    Args:
        channels: Of the map.
        padding: `same` pads right and bottom only, as TensorFlow does for even sizes (Ho et al. 2020);
            `symmetric` pads one pixel all around (Nichol & Dhariwal 2021).
    """

    def __init__(self, channels: int, *, padding: Padding = "same") -> None:
        super().__init__()
        self.padding = padding
        self.conv = xavier(Conv2d(channels, channels, 3, stride=2, padding=0 if padding == "same" else 1))

    def forward(self, h: Tensor) -> Tensor:
        """Return (B, C, H/2, W/2) for h (B, C, H, W), H and W even."""
        halved: Tensor = self.conv(functional.pad(h, (0, 1, 0, 1)) if self.padding == "same" else h)
        return halved


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3×3 convolution.

    Args:
        channels: Of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = xavier(Conv2d(channels, channels, 3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        """Return (B, C, 2H, 2W) for h (B, C, H, W)."""
        large: Tensor = self.conv(h, double=True)
        return large
