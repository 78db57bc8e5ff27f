"""LPIPS: how different two images look, by the features of a VGG16 network (Zhang et al. 2018).

Features of five depths are brought to unit length, and their squared differences are weighted, averaged over the
image and added up. The network is frozen: gradients pass through it to the images.

Images of other than three bands are seen in triples: bands 1 2 3, 4 5 6, …, the last triple ending with the last band;
two bands are the triple 1 2 2, and one is repeated. The distance is the mean over the triples.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom import checkpoint
from diffloom.errors import CheckpointError
from diffloom.paths import existing_file
from diffloom.unpickled import unpickled

RANDOM = "random"
"""A backbone without weights from a file: random features of a fixed seed. Not the published distance."""

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPS = 1e-10
_RGB = 3


class LPIPS(nn.Module):
    """The distance of pairs of images. Its weights are buffers, part of no checkpoint.

    Args:
        backbone: A file with VGG16's convolutions, as torchvision and timm name them (`features.0.weight`, …); or
            `random`.
        linear: A file with the distance's own weights (`lin0.model.1.weight`, …); without it all channels count 1.
        where: Who asks, for errors.
    """

    def __init__(self, *, backbone: str, linear: str | None = None, where: str = "task.perceptual") -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.name = "vgg" if backbone != RANDOM else RANDOM
        state = _random() if backbone == RANDOM else _tensors(existing_file(backbone, where=f"{where}.backbone"))
        heads = {} if linear is None else _tensors(existing_file(linear, where=f"{where}.linear"))
        for index, shape in enumerate(_shapes()):
            layer = _features()[index]
            self._keep(f"weight{index}", _one(state, (f"features.{layer}.weight",), shape, backbone))
            self._keep(f"bias{index}", _one(state, (f"features.{layer}.bias",), shape[:1], backbone))
        for stage, widths in enumerate(_STAGES):
            flat = torch.ones(1, widths[-1], 1, 1)
            if heads:
                names = (f"lin{stage}.model.1.weight", f"lins.{stage}.model.1.weight")
                flat = _one(heads, names, flat.shape, str(linear)).float()
            self._keep(f"head{stage}", flat)
        self._keep("mean", torch.tensor(_MEAN).view(1, -1, 1, 1))
        self._keep("std", torch.tensor(_STD).view(1, -1, 1, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance of each pair, (B,), for images (B, C, H, W) in [−1, 1], sides of at least 16."""
        bands = _triples(x.shape[1])
        heads = [self.get_buffer(f"head{stage}") for stage in range(len(_STAGES))]
        found = apart(self._seen(x, bands), self._seen(y, bands), heads)
        return found.view(len(bands), len(x)).mean(0)

    def _seen(self, x: Tensor, bands: Sequence[tuple[int, int, int]]) -> list[Tensor]:
        """Return the features of five depths, the triples of bands in the batch."""
        triples = torch.cat([x[:, list(triple)] for triple in bands])
        return self._stages((triples - self.mean) / self.std)

    def _stages(self, x: Tensor) -> list[Tensor]:
        """Return the maps before each halving, after their ReLU."""
        found, index, h = [], 0, x.contiguous(memory_format=torch.channels_last)
        for stage, widths in enumerate(_STAGES):
            h = functional.max_pool2d(h, 2) if stage else h
            for _ in widths:
                weight, bias = self.get_buffer(f"weight{index}"), self.get_buffer(f"bias{index}")
                h = functional.relu(functional.conv2d(h, weight, bias, padding=1))
                index += 1
            found.append(h)
        return found

    def _keep(self, name: str, value: Tensor) -> None:
        on = torch.empty(0).device  # where the system is being built
        self.register_buffer(name, value.detach().to(on, torch.float32), persistent=False)


def apart(x: Sequence[Tensor], y: Sequence[Tensor], heads: Sequence[Tensor] | None = None) -> Tensor:
    """Return how far the features of each pair are apart, (B,).

    Features are brought to unit length along channels; squared differences are weighted, averaged over the map and
    added up over the depths (Zhang et al. 2018, eq. 1).

    Args:
        x: Maps (B, c, h, w) of growing depth.
        y: Those of the other images.
        heads: Weights (1, c, 1, 1) of the channels at each depth; 1 by default.
    """
    found = []
    for depth, (first, second) in enumerate(zip(x, y, strict=True)):
        squared = (_unit(first) - _unit(second)).square()
        weighted = squared if heads is None else squared * heads[depth]
        found.append(weighted.sum(1).mean((1, 2)))
    return torch.stack(found).sum(0)


def _unit(h: Tensor) -> Tensor:
    return h / (h.square().sum(1, keepdim=True).sqrt() + _EPS)


def _shapes() -> list[tuple[int, ...]]:
    """Return the shapes of VGG16's thirteen kernels."""
    widths = [_RGB, *(width for stage in _STAGES for width in stage)]
    return [(out, channels, 3, 3) for channels, out in pairwise(widths)]


def _features() -> list[int]:
    """Return the places of the convolutions among VGG16's layers: each has a ReLU, each stage ends in a pooling."""
    places, place = [], 0
    for widths in _STAGES:
        for _ in widths:
            places.append(place)
            place += 2
        place += 1
    return places


def _random() -> dict[str, Tensor]:
    """Return kernels of a fixed seed that keep the size of their input through ReLU (He et al. 2015)."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    state = {}
    for place, shape in zip(_features(), _shapes(), strict=True):
        draw = torch.randn(shape, generator=generator, device="cpu")
        state[f"features.{place}.weight"] = draw * (2 / (shape[1] * 9)) ** 0.5
        state[f"features.{place}.bias"] = torch.zeros(shape[0], device="cpu")
    return state


def _triples(bands: int) -> list[tuple[int, int, int]]:
    """Return the triples of bands that are looked at; every band is in one."""
    if bands < _RGB:
        return [(0, bands - 1, bands - 1)]
    starts = [*range(0, bands - _RGB, _RGB), bands - _RGB]
    return [(start, start + 1, start + 2) for start in starts]


def _tensors(file: Path) -> Mapping[str, Tensor]:
    return checkpoint.load_tensors(file) if file.suffix == ".safetensors" else unpickled(file)


def _one(state: Mapping[str, Tensor], names: tuple[str, ...], shape: tuple[int, ...], file: str) -> Tensor:
    found = next((state[name] for name in names if name in state), None)
    if found is None or tuple(found.shape) != tuple(shape):
        raise CheckpointError(
            "the file is not what the perceptual distance needs",
            where=file,
            expected=f"'{names[0]}' of shape {tuple(shape)}",
            got="no such tensor" if found is None else str(tuple(found.shape)),
            remedy="give VGG16's convolutions as torchvision and timm store them, and LPIPS's own linear weights",
        )
    return found
