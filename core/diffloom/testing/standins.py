"""Stand-ins: small parts that do as an interface says, for testing a part that needs others."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffloom.arithmetic import weighted
from diffloom.autoencoder import Autoencoder, Posterior
from diffloom.condition import Condition, Ports, Tap
from diffloom.denoiser import Denoiser
from diffloom.grid import Grid
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.testing.strategies import Tabled

__all__ = ["PlainAutoencoder", "PlainSampler", "TinyDenoiser", "batch", "provided", "vp"]

_TAPS = ("down.0", "skip.0", "res.mid", "mid")


class TinyDenoiser(Denoiser):
    """Two convolutions with a residual branch, a middle and a skip to tap between them, that listens at every port.

    Args:
        space: What is denoised.
        out_channels: Channels of the output; the space's by default.
        ports: Widths of the ports.
    """

    def __init__(
        self,
        *,
        space: Space,
        out_channels: int | None = None,
        ports: Ports = Ports(context=8, vector=8, concat=2, affine=dict.fromkeys(_TAPS, 8)),  # noqa: B008  # frozen
    ) -> None:
        super().__init__()
        self.taps = tuple(Tap(name, 8, 1) for name in _TAPS)
        self.ports = ports
        self.out_channels = out_channels or space.channels
        self.stem = nn.Conv2d(space.channels, 8, 3, padding=1)
        self.beside = nn.Conv2d(max(ports.concat, 1), 8, 3, padding=1)
        self.told = nn.Linear(max(ports.vector, 1), 8)
        self.heard = nn.Linear(max(ports.context, 1), 8)
        self.when = nn.Linear(1, 8)
        self.head = nn.Conv2d(8, self.out_channels, 3, padding=1)

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the output, and the taps that are read; see `Denoiser.forward`."""
        given = condition or Condition()
        time = self.when(t.to(x_t).reshape(-1, 1) / 1000).expand(x_t.shape[0], -1)
        if given.vector is not None:
            time = time + self.told(given.vector)
        if given.context is not None:
            time = time + self.heard(given.context).mean(1)
        h = self.stem(x_t) + time[..., None, None]
        if given.concat is not None:
            h = h + self.beside(given.concat)
        maps = {"down.0": given.edit("down.0", h)}
        maps["skip.0"] = given.edit("skip.0", maps["down.0"])
        maps["res.mid"] = given.edit("res.mid", torch.tanh(maps["down.0"]))
        maps["mid"] = given.edit("mid", maps["res.mid"])
        output: Tensor = self.head(maps["mid"] + maps["skip.0"])
        return (output, {name: maps[name] for name in read}) if read else output


class PlainAutoencoder(Autoencoder):
    """Latents are the images.

    Args:
        channels: Of the images.
    """

    bounded = True

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.stride, self.latent_channels, self.image_channels = 1, channels, channels

    def encode(self, x: Tensor) -> Posterior:
        """Return x."""
        return Posterior(x)

    def decode(self, z: Tensor) -> Tensor:
        """Return z."""
        return z


class PlainSampler(Sampler):
    """The first-order step x_s = α_s x̂_0 + σ_s ε̂."""

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        said = self.denoise(model, state.x, grid.t[state.index], grid.levels[state.index])
        there = grid.levels[state.index + 1]
        return State(weighted((there.alpha, said.x0), (there.sigma, said.eps)), state.index + 1)


def vp(steps: int = 100) -> Schedule:
    """Return a variance-preserving schedule whose log-SNR falls evenly from 9 to −9."""
    log_snr = torch.linspace(9.0, -9.0, steps, dtype=torch.float64)
    return Tabled(alpha=log_snr.sigmoid().sqrt(), sigma=(-log_snr).sigmoid().sqrt())


def batch(keys: Sequence[str], count: int, space: Space, seed: int = 0) -> dict[str, Any] | None:
    """Return a made-up batch with the given conventional keys; `None` where a key is not conventional."""
    generator = torch.Generator().manual_seed(seed)

    def picture(channels: int) -> Tensor:
        return torch.rand(count, channels, *space.size, generator=generator) * 2 - 1

    made: dict[str, Any] = {"label": torch.arange(count) % 2, "caption": [f"picture {i}" for i in range(count)]}
    for key in ("image", "low_res", "pre", "post", "visible"):
        made[key] = picture(space.channels)
    made["infrared"] = picture(1)
    made["hint"] = torch.rand(count, 3, *space.size, generator=generator)
    made["mask"] = (picture(1) > 0).float()
    made["boxes"] = torch.tensor([[0.25, 0.5, 0.5, 0.25], [0.0, 0.0, 1.0, 1.0]]).expand(count, 2, 4).clone()
    made["box_labels"] = torch.stack([torch.arange(count) % 2, torch.full((count,), -1)], 1)
    return {key: made[key] for key in keys} if set(keys) <= set(made) else None


def provided(space: Space | None = None) -> Mapping[type, object]:
    """Return what a system provides to its parts, by interface."""
    space = space or Space(channels=3, size=(16, 16))
    return {
        Space: space,
        Schedule: vp(),
        Denoiser: TinyDenoiser(space=space),
        Autoencoder: PlainAutoencoder(channels=space.channels),
        Sampler: PlainSampler(steps=4),
    }
