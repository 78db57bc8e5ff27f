"""DiffusersDenoiser: a U-Net or transformer of diffusers, from a local folder in its layout."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.condition import Condition, Tap
from diffloom.denoiser import Denoiser
from diffloom.errors import IncompatibleParts
from diffloom.layout import Layout
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom_diffusers import taps
from diffloom_diffusers.examples import networks
from diffloom_diffusers.folder import described, loaded, made, weight_files
from diffloom_diffusers.layouts import identical
from diffloom_diffusers.wiring import Wiring

_PLACES = ("unet", "transformer", "prior")


class DiffusersDenoiser(Denoiser):
    """Any of diffusers' networks that predicts x_t's noise from x_t, a time, a context, and a class or vector.

    Its ports are read from its config: `context` for cross-attention; `vector` for classes (one weight for each,
    see `conditioner/diffusers-class`) or a projection; `concat` for input channels beyond those of the space. A
    U-Net publishes the taps `down.N`, `skip.N`, `mid` and `up.N`, so that whatever edits or reads taps works on it.

    Args:
        space: What is diffused.
        schedule: Where `time: sigma` finds σ.
        folder: A model's folder (config.json and safetensors, sharded or not), or a pipeline's.
        pretrained: Whether to load the weights; without, the network is new.
        variant: Of the weights, such as fp16; by default those without a variant.
        time: What the network is told of time: the index t, 0 … T−1, or σ_t.
        time_scale: Multiplies it; flow models of diffusers are told 1000 σ.

    Raises:
        CheckpointError: The folder holds no such model, or its weights are not those of its config.
        IncompatibleParts: The network does not fit the space, or must be told what no port can say.
    """

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, Any], ...]:
        """Write small networks and return their parameters: U-Nets without and with context, and a transformer."""
        return networks(folder)

    def __init__(
        self,
        *,
        space: Space,
        schedule: Schedule,
        folder: Annotated[Path, Field(description="folder of a model in diffusers' layout, or of a pipeline")],
        pretrained: bool = True,
        variant: str | None = None,
        time: Literal["index", "sigma"] = "index",
        time_scale: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__()
        place, config = described(folder, _PLACES)
        self.where = str(place)
        self.network: Any = loaded(place, config, variant) if pretrained else made(config, self.where)
        self.weight_files = weight_files(place, variant) if pretrained else ()
        self.wiring = Wiring.of(self.network, space.channels, self.where)
        self.schedule, self.time, self.time_scale = schedule, time, time_scale
        found = _probe(json.dumps(config), space, self.where)
        self.out_channels = found.channels
        self._publish(found.taps)

    @property
    def null_class(self) -> int | None:
        """The place in the vector that stands for no class, if one does."""
        return self.wiring.null_class

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the network's output, and the maps of the taps in `read` if there are any; see `Denoiser`.

        Raises:
            IncompatibleParts: The condition does not fit the ports, or a tap has an unknown name.
        """
        condition = condition or Condition()
        taps.check(list(self.ports.affine), condition, read)
        arguments = self.wiring.arguments(x_t, self._time(t).expand(x_t.shape[0]), condition)
        with taps.Listening(self.network, condition, read) as heard:
            output: Tensor = self.network(**arguments, return_dict=False)[0]
        return (output, {name: heard.maps[name] for name in read}) if read else output

    def until(self, tap: str) -> "DiffusersDenoiser":
        """Return a copy until a tap; of a U-Net, where that is `mid` or on the way down, it ends with the middle."""
        part = super().until(tap)
        early = [found for found in self.taps if found.name == "mid" or found.name.startswith("down.")]
        if tap in {found.name for found in early} and taps.shortened(part.network):
            part._publish(early)
            part.out_channels = early[-1].channels
        return part

    def layouts(self) -> Sequence[Layout]:
        """Return the layout of diffusers: the network's own; one that ends with the middle is no class there."""
        whole = identical(self, "network.", self.network)
        if any(tap.name.startswith("up.") for tap in self.taps) or not self.taps:
            return (whole,)
        return (replace(whole, config={key: value for key, value in whole.config.items() if key != "_class_name"}),)

    def _publish(self, found: Sequence[Tap]) -> None:
        self.taps = tuple(found)
        self.ports = self.wiring.ports({tap.name: tap.channels for tap in found})

    def _time(self, t: Tensor) -> Tensor:
        own = self.schedule.sigma(t).to(torch.float32) if self.time == "sigma" else t
        own = own * self.time_scale if self.time_scale != 1 else own
        return own.to(torch.float32) if own.dtype == torch.float64 else own


@dataclass(frozen=True)
class _Found:
    """What a call on the meta device shows of a network.

    Attributes:
        channels: Of its output.
        taps: What it publishes.
    """

    channels: int
    taps: tuple[Tap, ...]


@lru_cache(maxsize=32)
@torch.no_grad()
def _probe(config: str, space: Space, where: str) -> _Found:
    """Return what a network of this config (JSON) gives in a space, without memory: it is called on the meta device.

    Raises:
        IncompatibleParts: Where it does not run, or its output does not fit.
    """
    with torch.device("meta"):
        network = made(json.loads(config), where).eval()
        wiring = Wiring.of(network, space.channels, where)
        told = Condition(
            context=torch.empty(1, 2, wiring.context) if wiring.context else None,
            concat=torch.empty(1, wiring.concat, *space.size) if wiring.concat else None,
        )
        names = taps.names(network)
        arguments = wiring.arguments(torch.empty(1, *space.shape), torch.zeros(1), told)
        try:
            with taps.Listening(network, told, names) as heard:
                output = network(**arguments, return_dict=False)[0]
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise IncompatibleParts(
                f"{type(network).__name__} does not run on what is diffused: {error}",
                where=where,
                got=f"x_t of shape {space.shape}",
                remedy="change the data's size or channels, or take another network",
            ) from error
    _fit(network, output, space, where)
    stride, maps = max(space.size), heard.maps
    if any(maps[name] is not maps[name.replace("down", "skip")] for name in names if name.startswith("down.")):
        names = [name for name in names if not name.startswith("down.")]  # what goes on is not what is kept
    published = (Tap(name, maps[name].shape[1], stride // max(maps[name].shape[2:])) for name in names)
    return _Found(output.shape[1], tuple(published))


def _fit(network: Any, output: Tensor, space: Space, where: str) -> None:
    channels = output.shape[1]
    if channels in (space.channels, 2 * space.channels) and tuple(output.shape[2:]) == tuple(space.size):
        return
    raise IncompatibleParts(
        f"what {type(network).__name__} answers is not of the shape of what is diffused",
        where=where,
        expected=f"{space.channels} channels, or twice that with learned variance, of size {space.size}",
        got=f"{channels} channels of size {tuple(output.shape[2:])}",
    )
