"""Architectures of timm with weights from a file, as feature extractors."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from diffloom.errors import CheckpointError, IncompatibleParts
from diffloom.vision_compat import ensure_torchvision
from diffloom_metrics.networks import Network

ensure_torchvision()  # timm imports torchvision, in good order or not

import timm  # noqa: E402

_UNREADABLE = (SafetensorError, UnpicklingError, OSError, RuntimeError, ValueError, EOFError, LookupError)


class TimmNetwork(Network):
    """A network of timm. Images are brought to the size, mean and deviation that it was trained with.

    Resizing is bicubic and antialiased; an image of one channel is repeated where the network takes three.

    Args:
        architecture: Its name in timm.
        weights: A `.safetensors` file, or a state dictionary that `torch.load(weights_only=True)` reads. How many
            classes it has is taken from there.
        device: Where to compute.
    """

    def __init__(self, architecture: str, weights: Path, device: torch.device) -> None:
        self.name = f"timm:{architecture}"
        self.figures: dict[str, float] = {}
        self._device = device
        self._model = pretrained(architecture, weights).to(device)
        config = self._model.pretrained_cfg
        self._channels, *size = config["input_size"]
        self._size = tuple(size)
        self._mean, self._std = (torch.tensor(config[key], device=device).view(1, -1, 1, 1) for key in ("mean", "std"))

    def features(self, images: Tensor) -> Tensor:
        """Return what the network's last linear layer would see."""
        with torch.inference_mode():
            maps = self._model.forward_features(self._prepared(images, self._size))
            found: Tensor = self._model.forward_head(maps, pre_logits=True)
        return found.flatten(1).double().cpu()

    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probabilities of the classes in the file of weights."""
        if not self._model.num_classes:
            raise CheckpointError(
                "the weights have no classes",
                where=self.name,
                expected="those of the last linear layer",
                remedy="give a file that has them, or set `network: classifier`",
            )
        with torch.inference_mode():
            logits: Tensor = self._model(self._prepared(images, self._size))
        return logits.double().softmax(dim=1).cpu()

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps of every stage, for images in their own size: resizing is no part of a distance.

        Raises:
            CheckpointError: timm shows no stages of this network, or it takes images of one size alone.
        """
        try:
            with torch.inference_mode():
                found = self._model.forward_intermediates(self._prepared(images, None), intermediates_only=True)
        except (AttributeError, AssertionError) as error:
            raise CheckpointError(
                "the network shows no maps of images of this size",
                where=self.name,
                got=_line(error),
                remedy="take a convolutional one, such as timm:resnet18",
            ) from error
        return [each.cpu() for each in found]

    def _prepared(self, images: Tensor, size: tuple[int, ...] | None) -> Tensor:
        """Return images (N, C, H, W) in [−1, 1] as the network wants them, in another size where one is given."""
        channels = images.shape[1]
        if channels not in (1, self._channels):
            raise IncompatibleParts(
                "the images do not suit the network",
                where=self.name,
                expected=f"{self._channels} channels, or 1",
                got=str(channels),
                remedy="set `network: classifier`, which takes any number",
            )
        values = images.to(self._device).float().add(1).div(2).expand(-1, self._channels, -1, -1)
        if size is not None:
            values = functional.interpolate(values, size=size, mode="bicubic", antialias=True)
        return (values.clamp(0, 1) - self._mean) / self._std


def pretrained(architecture: str, weights: Path) -> Any:
    """Return a network of timm with the weights of a file, frozen; it has as many classes as these.

    Raises:
        IncompatibleParts: timm does not know it.
        CheckpointError: The weights cannot be read, or are another network's.
    """
    return _model(architecture, _state(weights), weights).eval().requires_grad_(False)


def _state(weights: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name."""
    try:
        if weights.suffix == ".safetensors":
            return load_file(weights)
        found: Any = torch.load(weights, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError("the weights cannot be read", where=str(weights), got=_line(error)) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError("the file is no state dictionary", where=str(weights), got=type(found).__name__)
    return found


def _model(architecture: str, state: dict[str, Tensor], weights: Path) -> Any:
    """Return the architecture with as many classes as the weights have, and the weights in it."""
    try:
        config = timm.get_pretrained_cfg(architecture) or timm.create_model(architecture).pretrained_cfg
        heads = config.classifier if isinstance(config.classifier, tuple) else (config.classifier,)
        last = state.get(f"{heads[0]}.weight")
        model = timm.create_model(architecture, num_classes=0 if last is None else len(last))
    except RuntimeError as error:
        near = ", ".join(timm.list_models(f"*{architecture}*")[:8])
        raise IncompatibleParts(
            f"timm has no network {architecture!r}",
            where="`network`",
            got=_line(error),
            remedy=f"choose one of timm.list_models(){': ' + near if near else ''}",
        ) from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights are not those of {architecture}", where=str(weights), got=" ".join(str(error).split())[:400]
        ) from error
    return model


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
