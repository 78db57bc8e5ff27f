"""A small system of stage two, whose denoiser counts how often it is asked."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffloom.condition import Condition
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.system import Plan, System
from diffloom_ddpm.identity import Identity
from diffloom_ddpm.schedules import Cosine
from diffloom_fusion.fuse import Fuse
from diffloom_unet.unet import UNet

SPACE = Space(4, (32, 32))


class Counting(UNet):
    """A U-Net of two levels that notes the size of every batch that it is asked about."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(**{"space": SPACE, "channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4, **changes})
        self.asked: list[int] = []

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        self.asked.append(len(x_t))
        return super().forward(x_t, t, condition, read=read)


def system(schedule: Schedule | None = None, **choices: Any) -> System:
    """Return a system with the task `fuse`, all weights drawn anew but not at 0."""
    torch.manual_seed(0)
    denoiser = Counting(dropout=0.3)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if not parameter.any() else None
    task = Fuse(denoiser=denoiser, space=SPACE, **{"timesteps": (4, 49), "keep_type": "float32", **choices})
    return System(
        Plan(data_space=SPACE),
        autoencoder=Identity(space=SPACE),
        task=task,
        schedule=schedule or Cosine(steps=2000),
        denoiser=denoiser,
    ).eval()


def task_of(built: System) -> Fuse:
    """Return the system's task, which is `fuse`."""
    if not isinstance(built.task, Fuse):
        raise TypeError(type(built.task))
    return built.task


def scene(count: int = 2, size: tuple[int, int] = (32, 32), seed: int = 0) -> dict[str, Tensor]:
    """Return smooth pairs."""
    generator = torch.Generator().manual_seed(seed)

    def picture(channels: int) -> Tensor:
        coarse = torch.rand(count, channels, 6, 6, generator=generator) * 2 - 1
        return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(-1, 1)

    return {"visible": picture(3), "infrared": picture(1)}
