"""DiffusersAutoencoder: an AutoencoderKL, VQModel, AutoencoderTiny … of diffusers, from a local folder."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from diffloom.autoencoder import Autoencoder, Posterior
from diffloom.errors import IncompatibleParts
from diffloom.layout import Layout
from diffloom.space import Space
from diffloom_diffusers.examples import autoencoders
from diffloom_diffusers.folder import described, loaded, made, weight_files
from diffloom_diffusers.layouts import identical

_PLACES = ("vae", "vqvae", "movq", "vqgan")
_SIDE = 256  # of the image that shows the stride: more than any autoencoder divides by


class DiffusersAutoencoder(Autoencoder):
    """Any of diffusers' image autoencoders: with a normal posterior, quantised, or plainly deterministic.

    Args:
        space: Of the images.
        folder: A model's folder (config.json and safetensors, sharded or not), or a pipeline's.
        pretrained: Whether to load the weights; without, the network is new.
        variant: Of the weights, such as fp16; by default those without a variant.
        scale: z = (raw − shift) · scale; by default the config's `scaling_factor`.
        shift: By default the config's `shift_factor`.

    Raises:
        CheckpointError: The folder holds no such model, or its weights are not those of its config.
        IncompatibleParts: It is not for images of these channels, or no autoencoder of images.
    """

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, Any], ...]:
        """Write small autoencoders and return their parameters."""
        return autoencoders(folder)

    def __init__(
        self,
        *,
        space: Space,
        folder: Annotated[Path, Field(description="folder of a model in diffusers' layout, or of a pipeline")],
        pretrained: bool = True,
        variant: str | None = None,
        scale: Annotated[float, Field(gt=0)] | None = None,
        shift: float | None = None,
    ) -> None:
        super().__init__()
        place, config = described(folder, _PLACES)
        where = str(place)
        network: Any = loaded(place, config, variant) if pretrained else made(config, where)
        self.network: Any = network
        self.weight_files = weight_files(place, variant) if pretrained else ()
        own_scale, own_shift = _scaling(dict(network.config))  # with the class's defaults
        self.scale = own_scale if scale is None else scale
        self.shift = own_shift if shift is None else shift
        self.image_channels = space.channels
        self.latent_channels, self.stride = _probe(json.dumps(config), space.channels, where)

    def encode(self, x: Tensor) -> Posterior:
        """Return the posterior over scaled latents; see `Autoencoder.encode`."""
        scale, shift = self._scaling(x)
        return Posterior(*_encoded(self.network, x)).scaled(scale, shift)

    def decode(self, z: Tensor) -> Tensor:
        """Return images; see `Autoencoder.decode`. A quantised model takes the nearest code words first."""
        scale, shift = self._scaling(z)
        image: Tensor = self.network.decode(z / scale + shift, return_dict=False)[0]
        return image

    def _scaling(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return scale and shift where and as they are needed."""
        found = [value.to(like) if isinstance(value, Tensor) else value for value in (self.scale, self.shift)]
        return found[0], found[1]

    def layouts(self) -> Sequence[Layout]:
        """Return the layout of diffusers: the network's own."""
        return (identical(self, "network.", self.network),)


def _scaling(config: dict[str, Any]) -> tuple[Tensor | float, Tensor | float]:
    """Return (scale, shift) of z = (raw − shift) · scale: numbers, or (c, 1, 1) where each channel has its own."""
    factor = float(config.get("scaling_factor") or 1.0)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return factor, float(config.get("shift_factor") or 0.0)
    mean, std = (torch.tensor(values, device="cpu").view(-1, 1, 1) for values in (mean, std))
    return factor / std, mean


def _encoded(network: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return (mean, log-variance or nothing) of unscaled latents, by what the network's answer holds."""
    answer = network.encode(x)
    posterior = getattr(answer, "latent_dist", None)
    if posterior is not None:
        return posterior.mean, None if posterior.deterministic else posterior.logvar
    latents = getattr(answer, "latents", None)
    return (answer.latent if latents is None else latents), None


@lru_cache(maxsize=32)
@torch.no_grad()
def _probe(text: str, channels: int, where: str) -> tuple[int, int]:
    """Return (latent channels, stride) of an autoencoder of a config (JSON), found by a call on the meta device.

    Raises:
        IncompatibleParts: Where it does not encode images of these channels and decode them again.
    """
    config: dict[str, Any] = json.loads(text)
    with torch.device("meta"):
        network: Any = made(config, where).eval()
        x = torch.empty(1, channels, _SIDE, _SIDE)
        try:
            z = _encoded(network, x)[0]
            again = network.decode(z, return_dict=False)[0]
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise IncompatibleParts(
                f"{type(network).__name__} does not encode these images: {error}",
                where=where,
                expected=f"an autoencoder of images with {channels} channels",
                got=f"in_channels {config.get('in_channels')}",
            ) from error
    if again.shape != x.shape or z.dim() != x.dim() or _SIDE % z.shape[-1]:
        raise IncompatibleParts(
            f"{type(network).__name__} is no autoencoder of images",
            where=where,
            expected="images come back in their shape",
            got=f"{tuple(x.shape)} → {tuple(z.shape)} → {tuple(again.shape)}",
        )
    return z.shape[1], _SIDE // z.shape[-1]
