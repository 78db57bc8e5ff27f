"""HED: holistically nested edge detection (Xie & Tu 2015): VGG-16's convolutions, and an edge map from each stage.

Five stages of 2, 2, 3, 3 and 3 convolutions, each half as large as the one before, are each read by a 1×1
convolution; the five maps, brought to the image's size, are fused by another. 14,716,171 parameters:
14,710,464 weights and 4,224 biases of the stages, 1,472 + 5 of the sides, 5 + 1 of the fuse.
The Caffe original pads the first convolution by 35 pixels and crops; here, as in its ports, all pad by 1.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom.layout import Layout, Weld
from diffloom.paths import expand
from diffloom.recipe.weights import fit
from diffloom.stored import stored

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)
SMALLEST = 16
"""The least side of an image that four halvings leave something of."""

_MEAN = (122.67891434, 116.66876762, 104.00698793)
_NAMES = ("One", "Two", "Thr", "Fou", "Fiv")
_BLUE_FIRST = "pytorch-hed"


class HED(nn.Module):
    """The network; it takes red, green and blue."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.stages = nn.ModuleList(_stage(i, o, n) for i, o, n in zip(inputs, WIDTHS, DEPTHS, strict=True))
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in WIDTHS)
        self.fuse = nn.Conv2d(len(WIDTHS), 1, 1)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))

    def side_outputs(self, x: Tensor) -> list[Tensor]:
        """Return the five maps of logits, (B, 1, H, W) … (B, 1, H/16, W/16), of images (B, 3, H, W) in [0, 1]."""
        h, found = 255 * x - self.mean, []
        for number, (stage, side) in enumerate(zip(self.stages, self.sides, strict=True)):
            h = stage(functional.max_pool2d(h, 2) if number else h)
            found.append(side(h))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return how likely each pixel lies on an edge, (B, 1, H, W), of images (B, 3, H, W) in [0, 1]."""
        size = x.shape[-2:]
        grown = [functional.interpolate(side, size=size, mode="bilinear") for side in self.side_outputs(x)]
        logits: Tensor = self.fuse(torch.cat(grown, 1))
        return logits.sigmoid()

    def layouts(self) -> Sequence[Layout]:
        """Return the layouts of the two ports whose weights are about: pytorch-hed, and ControlNet's annotator.

        The second fuses nothing: its answer is the mean of the five maps of logits.
        """
        mean = {"mean": torch.tensor(_MEAN).view(1, 3, 1, 1)}
        even = {"fuse.weight": torch.full((1, 5, 1, 1), 0.2), "fuse.bias": torch.zeros(1)}
        ported = Layout(_BLUE_FIRST, tuple(_ported()), aliases=(("^module", "net"),), constants=mean)
        return [ported, Layout("controlnet-hed", tuple(_annotator()), constants=even)]


def load(weights: str) -> HED:
    """Return the network with the weights in a file, in evaluation mode.

    Args:
        weights: A safetensors file: ours, or in one of the `layouts`. The Caffe original and pytorch-hed read blue
            first; their first convolution is turned round.

    Raises:
        CheckpointError: The file is missing, a pickle, or of another network.
        DataError: The path names an environment variable that is not set.
    """
    where = "the hint SoftEdges, weights"
    source = stored(expand(weights, where=where))
    network = HED()
    state = fit(network, source.shapes, f"{where} ({source.path})")(source.read())
    if any("VggOne" in key for key in source.shapes):
        state["stages.0.0.weight"] = state["stages.0.0.weight"].flip(1)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _stage(before: int, width: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Conv2d(width if number else before, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def _welds(ours: str, theirs: str) -> Iterator[Weld]:
    for kind in ("weight", "bias"):
        yield Weld(f"{ours}.{kind}", (f"{theirs}.{kind}",))


def _ported() -> Iterator[Weld]:
    for number, (name, depth) in enumerate(zip(_NAMES, DEPTHS, strict=True)):
        for place in range(depth):  # a pooling stands before the convolutions of all stages but the first
            yield from _welds(f"stages.{number}.{2 * place}", f"netVgg{name}.{2 * place + (number > 0)}")
        yield from _welds(f"sides.{number}", f"netScore{name}")
    yield from _welds("fuse", "netCombine.0")


def _annotator() -> Iterator[Weld]:
    yield Weld("mean", ("norm",))
    for number, depth in enumerate(DEPTHS):
        for place in range(depth):
            yield from _welds(f"stages.{number}.{2 * place}", f"block{number + 1}.convs.{place}")
        yield from _welds(f"sides.{number}", f"block{number + 1}.projection")
