"""The contract of autoencoders: each law is broken once, and caught by the check that is named after it."""

import pytest
import torch
from torch import Tensor, nn

from diffloom.autoencoder import Autoencoder, Posterior
from diffloom.kinds import registry
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom.testing.contracts import verify


class Halving(Autoencoder):
    """Means of 2×2 pixels, with a variance, and a scale and shift that it is given."""

    def __init__(self, *, space: Space, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.stride, self.latent_channels, self.image_channels = 2, space.channels, space.channels
        self.scale, self.shift = scale, shift
        self.gain = nn.Parameter(torch.ones(()))

    def encode(self, x: Tensor) -> Posterior:
        raw = self.gain * nn.functional.avg_pool2d(x, 2)
        return Posterior(raw, torch.full_like(raw, -2.0)).scaled(self.scale, self.shift)

    def decode(self, z: Tensor) -> Tensor:
        return nn.functional.interpolate(z / self.scale + self.shift, scale_factor=2.0)


class WrongStride(Halving):
    def __init__(self, *, space: Space, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__(space=space, scale=scale, shift=shift)
        self.stride = 4


class WrongChannels(Halving):
    def __init__(self, *, space: Space, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__(space=space, scale=scale, shift=shift)
        self.image_channels = 7


class ForgetsToUnscale(Halving):
    def decode(self, z: Tensor) -> Tensor:
        return nn.functional.interpolate(z, scale_factor=2.0)


class ShiftsAfterScaling(Halving):
    def encode(self, x: Tensor) -> Posterior:
        raw = self.gain * nn.functional.avg_pool2d(x, 2)
        return Posterior(raw * self.scale - self.shift, torch.full_like(raw, -2.0))

    def decode(self, z: Tensor) -> Tensor:
        return nn.functional.interpolate((z + self.shift) / self.scale, scale_factor=2.0)


class _TooWide(Posterior):
    def sample(self, noise: Noise) -> Tensor:
        return self.mean + 2 * (super().sample(noise) - self.mean)


class DrawsTooWide(Halving):
    def encode(self, x: Tensor) -> Posterior:
        code = super().encode(x)
        return _TooWide(code.mean, code.logvar)


class _Doubled(Posterior):
    def kl(self, other: Posterior | None = None) -> Tensor:
        return 2 * super().kl(other)


class WrongDivergence(Halving):
    def encode(self, x: Tensor) -> Posterior:
        code = super().encode(x)
        return _Doubled(code.mean, code.logvar)


class _Stray(Posterior):
    def sample(self, noise: Noise) -> Tensor:
        return self.mean + 0.1 * noise.normal(self.mean, "stray")


class DrawsFromNothing(Halving):
    def encode(self, x: Tensor) -> Posterior:
        return _Stray(super().encode(x).mean)


class SeesNothing(Halving):
    def encode(self, x: Tensor) -> Posterior:
        return super().encode(torch.zeros_like(x))


class MixesItems(Halving):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z) - super().decode(z).mean(0)


class WritesIntoImages(Halving):
    def encode(self, x: Tensor) -> Posterior:
        return super().encode(x.mul_(0.5))


class ReadsValues(Halving):
    def encode(self, x: Tensor) -> Posterior:
        return super().encode(x / float(x.abs().max()) if float(x.abs().max()) > 1 else x)


def failed(cls: type[Autoencoder]) -> set[str]:
    with registry.add("autoencoder", "tried", cls):
        return {outcome.check for outcome in verify("autoencoder", "tried") if outcome.status == "failed"}


def test_a_sound_autoencoder_keeps_every_law() -> None:
    with registry.add("autoencoder", "tried", Halving):
        outcomes = verify("autoencoder", "tried")
    said = {outcome.check: outcome.status for outcome in outcomes}
    assert said.pop("bounded-latents-stay-in-range") == "not applicable"
    assert set(said.values()) == {"passed"}


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (WrongStride, "shapes"),
        (WrongChannels, "shapes"),
        (ForgetsToUnscale, "scale-and-shift"),
        (ShiftsAfterScaling, "scale-and-shift"),
        (DrawsTooWide, "draws-are-those-of-the-posterior"),
        (DrawsFromNothing, "draws-are-those-of-the-posterior"),
        (WrongDivergence, "divergence"),
        (SeesNothing, "images-and-latents-matter"),
        (MixesItems, "items-do-not-depend-on-their-batch"),
        (WritesIntoImages, "items-do-not-depend-on-their-batch"),
        (ReadsValues, "shapes-on-the-meta-device"),
    ],
)
def test_a_broken_autoencoder_is_caught(cls: type[Autoencoder], check: str) -> None:
    assert check in failed(cls)


def test_a_scale_is_asked_for_only_where_it_can_be_given() -> None:
    with registry.add("autoencoder", "tried", Unscaled):
        said = {outcome.check: outcome.status for outcome in verify("autoencoder", "tried")}
    assert said["scale-and-shift"] == "not applicable"


class Unscaled(Halving):
    def __init__(self, *, space: Space) -> None:
        super().__init__(space=space)
