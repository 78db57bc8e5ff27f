"""A two-level convolutional network with two taps and all but the context port."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom import Condition, Denoiser, Ports, Space, Tap


class Hourglass(Denoiser):
    """Full size, half size, full size again, with one skip.

    Args:
        space: What is denoised.
        channels: Width at full size; twice that at half size.
        concat: Channels that are told beside x_t.
    """

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"channels": 16, "concat": 2})
    rates: Tensor

    def __init__(
        self,
        *,
        space: Space,
        channels: Annotated[int, Field(gt=0, multiple_of=8)] = 32,
        concat: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__()
        self.out_channels = space.channels
        self.taps = (Tap("down", channels, 1), Tap("mid", 2 * channels, 2))
        self.ports = Ports(vector=channels, concat=concat, affine={"mid": 2 * channels})
        self.register_buffer("rates", torch.logspace(0, -4, channels // 2), persistent=False)
        self.time = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.stem = nn.Conv2d(space.channels + concat, channels, 3, padding=1)
        self.down = _Block(channels, channels)
        self.halve = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.mid = _Block(2 * channels, channels)
        self.widen = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.up = _Block(channels, channels)
        self.head = nn.Conv2d(channels, space.channels, 3, padding=1)

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the output, and the taps that are read; see `Denoiser.forward`."""
        told = condition or Condition()
        angles = t.to(x_t).reshape(-1, 1) * self.rates.to(x_t)
        when: Tensor = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        if told.vector is not None:
            when = when + told.vector
        taps: dict[str, Tensor] = {}
        h = x_t if told.concat is None else torch.cat([x_t, told.concat], 1)
        h = taps["down"] = self.down(self.stem(h), when)
        low = taps["mid"] = told.edit("mid", self.mid(self.halve(h), when))
        h = h + self.widen(functional.interpolate(low, size=h.shape[-2:]))
        output: Tensor = self.head(self.up(h, when))
        return (output, {name: taps[name] for name in read}) if read else output


class _Block(nn.Module):
    """h ← h + conv(SiLU(norm(h) · (1 + scale) + shift))."""

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.told = nn.Linear(told, 2 * channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor, when: Tensor) -> Tensor:
        """Return the next feature map, the shape of h; `when` is (B or 1, told)."""
        scale, shift = self.told(when)[..., None, None].chunk(2, 1)
        changed: Tensor = self.conv(functional.silu(self.norm(h) * (1 + scale) + shift))
        return h + changed
