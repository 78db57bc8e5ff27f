"""Systems whose networks are exact for Gaussian data, so that answers have closed forms."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from diffloom.autoencoder import Autoencoder
from diffloom.condition import Condition, Ports
from diffloom.conditioner import Conditioner
from diffloom.denoiser import Denoiser
from diffloom.sampler import Sampler
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.system import Conditioning, Plan, System
from diffloom.task import Task
from diffloom.testing.oracles import Oracle, PointMass
from diffloom.testing.standins import PlainAutoencoder, vp
from diffloom_ddim.sampler import DDIM

PATH = vp(200)


class Exact(Denoiser):
    """A network that answers as an oracle does, x0, and counts how often it is asked."""

    def __init__(self, oracle: Oracle, channels: int = 1, ports: Ports | None = None) -> None:
        super().__init__()
        self.oracle, self.out_channels = oracle, channels
        self.ports = ports or Ports()
        self.weight = nn.Parameter(torch.ones(()))
        self.asked: list[float] = []
        self.heard: list[Condition | None] = []

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        self.asked.append(float(t.reshape(-1)[0]))
        self.heard.append(condition)
        return self.oracle(x_t, t).x0 * self.weight


def system(
    task: Task,
    denoiser: Denoiser,
    *,
    size: tuple[int, int] = (4, 4),
    channels: int = 1,
    sampler: Sampler | None = None,
    autoencoder: Autoencoder | None = None,
    schedule: Schedule = PATH,
    conditioners: Mapping[str, Conditioner] | None = None,
    drop: float = 0.0,
) -> System:
    """Return a system that predicts x0, of the parts given."""
    told = conditioners or {}
    plan = Plan(
        data_space=Space(channels, size),
        prediction="x0",
        conditioning={name: Conditioning(drop=drop) for name in told},
    )
    return System(
        plan,
        autoencoder=autoencoder or PlainAutoencoder(channels=channels),
        task=task,
        schedule=schedule,
        denoiser=denoiser,
        sampler=sampler or DDIM(steps=20),
        conditioners=told,
    ).eval()


def point(value: float = 0.3) -> Exact:
    """Return the network for data that are always the same."""
    return Exact(PointMass(PATH, value))


def asked(built: System) -> list[float]:
    """Return the times at which a system's exact network was asked."""
    return cast(Exact, built.denoiser).asked


def images(count: int, size: int = 4, channels: int = 1, seed: int = 0) -> Tensor:
    """Return random images in [−1, 1]."""
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
