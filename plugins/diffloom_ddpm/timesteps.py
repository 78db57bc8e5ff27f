"""Timesteps: which noise level each item of a batch is trained at.

Law: with (t, w) drawn, the mean of w · f(t) is an unbiased estimate of the mean of f over all levels; only `cubic`
prefers some levels on purpose.
"""

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, distributed, nn

from diffloom.noise import Noise

Spread = Literal["uniform", "antithetic", "loss-aware", "continuous", "cubic"]


class Drawn(NamedTuple):
    """Times for a batch.

    Attributes:
        t: (B,) int64, or float64 where times are real; 0 … T−1.
        weight: (B,) float64, the importance weight of each item's loss.
    """

    t: Tensor
    weight: Tensor


class Timesteps(nn.Module, ABC):
    """Base of the ways to draw times; what they learn lies in buffers, so that checkpoints hold it.

    Attributes:
        real: Whether times are real numbers.
    """

    real: bool = False

    @abstractmethod
    def forward(self, noise: Noise, steps: int, device: torch.device) -> Drawn:
        """Draw one time per item from its own stream.

        Args:
            noise: One stream per item.
            steps: T.
            device: Where the times are wanted.
        """

    def learn(self, t: Tensor, losses: Tensor) -> None:
        """Take notice of losses (B,), before their importance weights, at times t (B,)."""


class Uniform(Timesteps):
    """t ~ U{0 … T−1}, each item on its own (Ho et al. 2020, algorithm 1)."""

    def forward(self, noise: Noise, steps: int, device: torch.device) -> Drawn:
        """Draw; see `Timesteps`."""
        return _unweighted(noise.integers(steps, device, "time"))


class Antithetic(Timesteps):
    """⌈B/2⌉ items draw t ~ U{0 … T−1}, the others take T−1−t of them (Song et al. 2021, their code)."""

    def forward(self, noise: Noise, steps: int, device: torch.device) -> Drawn:
        """Draw; see `Timesteps`. Item ⌈B/2⌉ + i mirrors item i."""
        half = noise[: (len(noise) + 1) // 2].integers(steps, device, "time")
        return _unweighted(torch.cat([half, steps - 1 - half])[: len(noise)])


class Continuous(Timesteps):
    """Real t ~ U[0, T−1): levels between the table's points are trained as well."""

    real = True

    def forward(self, noise: Noise, steps: int, device: torch.device) -> Drawn:
        """Draw; see `Timesteps`."""
        return _unweighted(_uniform(noise, device) * (steps - 1))


class Cubic(Timesteps):
    """t = ⌊(1 − u³) T⌋, u ~ U[0, 1): noisy levels more often, with mean 3T/4 and P(t ≥ T/2) = ∛½.

    What an image shows where is decided early (T2I-Adapter, Mou et al. 2023). Losses are not weighted against it.
    """

    def forward(self, noise: Noise, steps: int, device: torch.device) -> Drawn:
        """Draw; see `Timesteps`."""
        t = ((1 - _uniform(noise, device) ** 3) * steps).long()
        return _unweighted(t.clamp(max=steps - 1))


class LossAware(Timesteps):
    """p_t ∝ √E[L_t²], from the last losses at each level (Nichol & Dhariwal 2021, eq. 18).

    Until every level has a full history times are uniform. A small share stays uniform for ever, so that no
    level is forgotten. All processes of a distributed run learn from the losses of all.

    Args:
        steps: T.
        history: Losses kept per level.
        uniform: Share of uniform draws.
    """

    losses: Tensor
    counts: Tensor

    def __init__(self, steps: int, *, history: int = 10, uniform: float = 0.001) -> None:
        super().__init__()
        self.history = history
        self.uniform = uniform
        self.register_buffer("losses", torch.zeros(steps, history))
        self.register_buffer("counts", torch.zeros(steps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """Return p, (T,) float64."""
        size = self.losses.double().square().mean(1).sqrt()
        share = torch.full_like(size, 1 / len(size))
        learned = (1 - self.uniform) * size / size.sum().clamp_min(1e-300) + self.uniform * share
        # Losses that are 0 everywhere prefer no level.
        known = (self.counts >= self.history).all() & (size.sum() > 0)
        return torch.where(known, learned, share)

    def forward(self, noise: Noise, steps: int, device: torch.device) -> Drawn:
        """Draw by inversion, with weight 1/(T p_t); see `Timesteps`."""
        p = self.probabilities().to(device)
        t = torch.searchsorted(p.cumsum(0), _uniform(noise, device), right=True).clamp(max=steps - 1)
        return Drawn(t, 1 / (steps * p[t]))

    @torch.no_grad()
    def learn(self, t: Tensor, losses: Tensor) -> None:
        """Put losses (B,) into the histories of their levels t (B,) int64, in order, over the oldest."""
        t, losses = gathered(t, losses.detach())
        places = torch.arange(len(t), device=t.device)
        same = t[:, None] == t
        slot = (self.counts[t] + same.tril(-1).sum(1)) % self.history
        # Of several losses for one slot the last one stays; all write it, so their order does not matter.
        last = torch.where(same & (slot[:, None] == slot), places, -1).amax(1)
        self.losses[t, slot] = losses[last].to(self.losses.dtype)
        self.counts.index_add_(0, t, torch.ones_like(t))


def make(spread: Spread, steps: int) -> Timesteps:
    """Return the way to draw times that a recipe names, for T = `steps` levels."""
    if spread == "loss-aware":
        return LossAware(steps)
    if spread == "antithetic":
        return Antithetic()
    plain: dict[Spread, type[Timesteps]] = {"continuous": Continuous, "cubic": Cubic, "uniform": Uniform}
    return plain[spread]()


def gathered(t: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Return times and losses (B,) of all processes, in the order of their ranks.

    Processes may hold different numbers of items; outside distributed runs there is one.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return t, losses
    world = distributed.get_world_size()
    count = torch.tensor([len(t)], device=t.device)
    counts = [torch.zeros_like(count) for _ in range(world)]
    distributed.all_gather(counts, count)
    sizes = [int(c) for c in counts]
    mine = torch.zeros(max(sizes), 2, dtype=torch.float64, device=t.device)
    mine[: len(t)] = torch.stack([t.double(), losses.double()], 1)
    everyone = [torch.empty_like(mine) for _ in range(world)]
    distributed.all_gather(everyone, mine)
    rows = torch.cat([row[:size] for row, size in zip(everyone, sizes, strict=True)])
    return rows[:, 0].long(), rows[:, 1].to(losses.dtype)


def _uniform(noise: Noise, device: torch.device) -> Tensor:
    return noise.uniform(torch.empty(len(noise), dtype=torch.float64, device="cpu"), "time").to(device)


def _unweighted(t: Tensor) -> Drawn:
    return Drawn(t, torch.ones(len(t), dtype=torch.float64, device=t.device))
