"""Autoencoder: the map between images and what is diffused.

Law: `decode(encode(x).mode())` is close to x; latents leave `encode` already shifted and scaled,
z = (raw − shift) · scale, and `decode` undoes it, so everything between works on latents of unit size. Pixel systems
use the `identity` autoencoder: no task ever branches on it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffloom.errors import IncompatibleParts
from diffloom.layout import Layout
from diffloom.noise import Noise
from diffloom.tiles import blended

Scale = float | Sequence[float]
"""One number for all channels of a latent, or one for each."""

_LN_TAU = math.log(2 * math.pi)


@dataclass(frozen=True)
class Posterior:
    """q(z|x) = N(mean, exp(logvar)), one item per row; `logvar` is `None` for a deterministic code.

    The clamp of logvar to [−30, 20] is latent diffusion's convention.
    """

    mean: Tensor
    logvar: Tensor | None = None

    def mode(self) -> Tensor:
        """Return the most likely code, (B, c, *spatial)."""
        return self.mean

    def sample(self, noise: Noise) -> Tensor:
        """Return mean + std · ε with the item's own noise; the mean itself for a deterministic code."""
        if self.logvar is None:
            return self.mean
        return torch.addcmul(self.mean, self._clamped().mul(0.5).exp(), noise.normal(self.mean, "posterior"))

    def divergence(self, other: "Posterior | None" = None) -> Tensor:
        """Return KL(q ‖ other) in nats for every number of the code; `other` is N(0, I) by default.

        It is ½(ln v₂/v₁ + (v₁ + (μ₁ − μ₂)²)/v₂ − 1), and 0 for a deterministic code.

        Returns:
            (B, c, *spatial).
        """
        if self.logvar is None:
            return torch.zeros_like(self.mean)
        logvar = self._clamped()
        if other is None:
            return 0.5 * (self.mean.square() + logvar.exp() - 1 - logvar)
        gap = logvar - other._clamped()
        shift = (self.mean - other.mean).square() * torch.exp(-other._clamped())
        return 0.5 * (gap.exp() - 1 - gap + shift)

    def kl(self, other: "Posterior | None" = None) -> Tensor:
        """Return KL(q ‖ other) in nats per item, (B,); see `divergence`."""
        return self.divergence(other).flatten(1).sum(1)

    def nll(self, z: Tensor) -> Tensor:
        """Return −ln q(z|x) in nats per item, (B,): ½ Σ (ln 2π + logvar + (z − mean)²/var)."""
        logvar = self._clamped()
        terms = _LN_TAU + logvar + (z - self.mean).square() * torch.exp(-logvar)
        return 0.5 * terms.flatten(1).sum(1)

    def scaled(self, scale: Tensor | float, shift: Tensor | float) -> "Posterior":
        """Return the posterior of (z − shift) · scale."""
        mean = (self.mean - shift) * scale
        if self.logvar is None:
            return Posterior(mean)
        return Posterior(mean, self._clamped() + 2 * self._like(scale).log())

    def unscaled(self, scale: Tensor | float, shift: Tensor | float) -> "Posterior":
        """Return the posterior of z / scale + shift: what `scaled` was given."""
        return self.scaled(1 / self._like(scale), -shift * self._like(scale))

    def _like(self, value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=self.mean.dtype, device=self.mean.device)

    def _clamped(self) -> Tensor:
        if self.logvar is None:
            raise TypeError("a deterministic code has no variance")
        return self.logvar.clamp(-30.0, 20.0)


class Autoencoder(nn.Module, ABC):
    """Base of all autoencoders.

    Attributes:
        stride: How many times smaller a latent is than its image along each side.
        latent_channels: Channels of a latent.
        scale: z = (raw − shift) · scale.
        shift: See `scale`.
        image_channels: Channels of an image; 0 where it does not say.
        bounded: Whether latents keep the image's value range (only the identity does).
        reach: How many latents to each side matter to a pixel, normalisations and attention aside; 0 where images
            cannot be decoded in tiles.
        tile: Side of the tiles in which larger latents are decoded and encoded, in latents; `None`: at once.
        weight_files: What its constructor read weights from, if it does; a run's lock file records their hash.
    """

    stride: int
    latent_channels: int
    scale: Tensor | float
    shift: Tensor | float
    image_channels: int = 0
    bounded: bool = False
    reach: int = 0
    tile: int | None = None
    weight_files: tuple[Path, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = 1.0, 0.0

    @abstractmethod
    def encode(self, x: Tensor) -> Posterior:
        """Return the posterior over scaled latents of images x (B, C, H, W) in [−1, 1]."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Return images (B, C, H, W) for scaled latents z (B, latent_channels, H/stride, W/stride)."""

    def is_scaled(self) -> bool:
        """Return whether latents are known to have unit size."""
        return True

    def layouts(self) -> Sequence[Layout]:
        """Return how other libraries store the weights of this part, as it is configured; none by default."""
        return ()


class ScaledAutoencoder(Autoencoder):
    """An autoencoder whose raw latents are of any size: their scale is given, or measured once it is trained.

    Scale and shift are buffers, (latent_channels, 1, 1), and saved with the weights. Given ones outlast loading.

    Args:
        channels: Of a latent.
        scale: What raw latents are multiplied with; `None`: 1 until `measure` or loaded weights say it.
        shift: What is taken off first.

    Raises:
        IncompatibleParts: Their number is not that of the channels, or a scale is not positive.
    """

    scale: Tensor
    shift: Tensor
    measured: Tensor

    def __init__(self, *, channels: int, scale: Scale | None = None, shift: Scale = 0.0) -> None:
        super().__init__()
        self.latent_channels = channels
        self.given = scale is not None
        values = {"scale": _each(1.0 if scale is None else scale, channels, "scale")}
        values["shift"] = _each(shift, channels, "shift")
        if min(values["scale"]) <= 0:
            raise IncompatibleParts("a scale is not positive", where="autoencoder.scale", got=str(scale))
        self._values: dict[str, Any] = {**values, "measured": self.given}
        for name, value in values.items():
            delattr(self, name)  # the plain number
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("measured", torch.tensor(self.given))

    @abstractmethod
    def moments(self, x: Tensor) -> Tensor:
        """Return what `posterior` makes a distribution of, (B, n, H/stride, W/stride), for images x."""

    @abstractmethod
    def posterior(self, moments: Tensor) -> Posterior:
        """Return the posterior over raw latents that moments describe."""

    @abstractmethod
    def picture(self, raw: Tensor) -> Tensor:
        """Return images (B, C, H, W) for raw latents."""

    def encode(self, x: Tensor) -> Posterior:
        """Return the posterior over scaled latents; see `Autoencoder.encode`."""
        small = self.tile is None or max(x.shape[2:]) <= self.tile * self.stride
        moments = self.moments(x) if small else blended(self.moments, x, self._tiles(), encode=self.stride)
        return self.posterior(moments).scaled(self.scale, self.shift)

    def decode(self, z: Tensor) -> Tensor:
        """Return images for scaled latents; see `Autoencoder.decode`."""
        raw = z / self.scale + self.shift
        if self.tile is None or max(z.shape[2:]) <= self.tile:
            return self.picture(raw)
        return blended(self.picture, raw, self._tiles(), decode=self.stride)

    def is_scaled(self) -> bool:
        """Return whether the scale was given, measured, or came with the weights."""
        return self.given or (not self.measured.is_meta and bool(self.measured))

    def constants(self) -> Mapping[str, Tensor]:
        """Return scale and shift as they were given, for layouts of other libraries, whose files lack them."""
        kept = {n: torch.tensor(self._values[n], device="cpu").view(-1, 1, 1) for n in ("scale", "shift")}
        return kept | {"measured": torch.tensor(self.given, device="cpu")}

    @torch.no_grad()
    def measure(self, images: Iterable[tuple[Tensor, Noise]], *, shared: bool = False) -> None:
        """Set scale and shift so that draws from the posteriors of images have mean 0 and deviation 1.

        Args:
            images: (B, C, H, W) in [−1, 1], and the noise of the draws.
            shared: One scale for all channels and no shift, as latent diffusion has it.
        """
        count = 0
        total = squares = torch.zeros(self.latent_channels, dtype=torch.float64, device=self.scale.device)
        for x, noise in images:
            raw = self.posterior(self.moments(x)).sample(noise).double().transpose(0, 1).flatten(1)
            count += raw.shape[1]
            total, squares = total + raw.sum(1), squares + raw.square().sum(1)
        if shared:
            count, total, squares = count * len(total), total.sum(0, keepdim=True), squares.sum(0, keepdim=True)
        mean = total / count
        deviation = ((squares - count * mean.square()) / (count - 1)).sqrt()
        self.scale.copy_((1 / deviation).view(-1, 1, 1).expand_as(self.scale))
        self.shift.copy_((0 * mean if shared else mean).view(-1, 1, 1).expand_as(self.shift))
        self.measured.fill_(True)

    def _tiles(self) -> tuple[int, int]:
        """Return the side of tiles and their overlap, in latents."""
        require_tiles(self)
        return self.tile or 0, self.reach

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        if self.given:
            state_dict.update({prefix + name: value for name, value in self.constants().items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


def require_scaled(part: Autoencoder) -> None:
    """Raise IncompatibleParts where nobody knows the scale of an autoencoder's latents, so none can be diffused."""
    if not part.bounded and not part.is_scaled():
        raise IncompatibleParts(
            "nothing says how large the latents of this autoencoder are, and diffusion needs them at unit size",
            where="autoencoder.scale",
            expected="weights whose scale was measured, or a scale",
            remedy="train it (`task: {type: autoencode}`) and name the run, as autoencoder.weights: run:NAME; or give "
            "autoencoder.scale, which is 0.18215 for Stable Diffusion's weights",
        )


def require_tiles(part: Autoencoder) -> None:
    """Raise IncompatibleParts where an autoencoder cannot work in tiles of the side that it was given."""
    if part.tile is not None and part.tile < max(2 * part.reach, 1 if part.reach else part.tile + 1):
        raise IncompatibleParts(
            "the tiles are too small for this autoencoder" if part.reach else "this autoencoder has no tiles",
            where="sample.tile",
            expected=f"at least {2 * part.reach} latents, twice as far as a pixel sees" if part.reach else "null",
            got=str(part.tile),
        )


def _each(value: Scale, channels: int, name: str) -> list[float]:
    """Return one number for each channel."""
    each = [float(value)] * channels if isinstance(value, int | float) else [float(v) for v in value]
    if len(each) != channels:
        raise IncompatibleParts(
            f"there is not one {name} for each channel of the latents",
            where=f"autoencoder.{name}",
            expected=f"a number, or {channels} of them",
            got=str(len(each)),
        )
    return each
