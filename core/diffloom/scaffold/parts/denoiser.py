"""ConvNet: residual convolutions at full size, told the time, and more through its vector port.

Law: the output has the shape of x_t and depends, item by item, on x_t, t and the condition alone.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom import Condition, Denoiser, Ports, Space, Tap

_GROUPS = 4


class ConvNet(Denoiser):
    """A small network for small images; the map in its middle is the tap `mid`.

    Args:
        space: What is denoised; the recipe's system gives it.
        channels: Channels of the feature maps.
        blocks: Residual blocks before the middle, and as many after it.
    """

    def __init__(
        self,
        *,
        space: Space,
        channels: Annotated[int, Field(gt=0, multiple_of=_GROUPS)] = 32,
        blocks: Annotated[int, Field(gt=0)] = 2,
    ) -> None:
        super().__init__()
        self.out_channels = space.channels
        self.taps = (Tap("mid", channels, 1),)
        self.ports = Ports(vector=channels, affine={"mid": channels})
        self.channels = channels
        self.time = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.stem = nn.Conv2d(space.channels, channels, 3, padding=1)
        self.first = nn.ModuleList(_Block(channels, 2**i) for i in range(blocks))
        self.second = nn.ModuleList(_Block(channels, 2**i) for i in range(blocks))
        self.head = nn.Conv2d(channels, self.out_channels, 3, padding=1)

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the output, (B, C, H, W), and the tap if it is read; see `Denoiser.forward`."""
        told = condition or Condition()
        when: Tensor = self.time(_waves(t.to(x_t).reshape(-1), self.channels))
        if told.vector is not None:
            when = when + told.vector
        h: Tensor = self.stem(x_t)
        for block in self.first:
            h = block(h, when)
        h = mid = told.edit("mid", h)
        for block in self.second:
            h = block(h, when)
        output: Tensor = self.head(h)
        return (output, dict.fromkeys(read, mid)) if read else output


class _Block(nn.Module):
    """h ← h + conv((1 + scale) · norm(h) + shift), with scale and shift (B, channels) read off the time."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.told = nn.Linear(channels, 2 * channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, h: Tensor, when: Tensor) -> Tensor:
        """Return the next feature map, the shape of h; `when` is (B, channels), or (1, channels) for all."""
        scale, shift = self.told(functional.silu(when))[..., None, None].chunk(2, 1)
        changed: Tensor = self.conv(functional.silu(torch.addcmul(shift, 1 + scale, self.norm(h))))
        return h + changed


def _waves(t: Tensor, width: int) -> Tensor:
    """Return sines and cosines of times (N,) at `width`/2 frequencies from 1 to 1/10000, (N, width)."""
    frequencies = torch.exp(torch.linspace(0, -math.log(10_000), width // 2, device=t.device, dtype=t.dtype))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)
