"""DenseFuse: a small network that learns to give images back, and fuses them between its halves (Li & Wu 2019).

No fused image is needed to learn from: encoder and decoder are trained on single channels of every modality.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom.conditioner import Batch
from diffloom.noise import Noise
from diffloom.system import System
from diffloom.task import Loss, Objective
from diffloom_fusion.blend import Colour, Rule
from diffloom_fusion.rules import PAIR, window_mean
from diffloom_metrics.fidelity import ssim

_BLOCK = 3
_SMALL = 11


class DenseFuse(Rule):
    """An encoder with a dense block, a rule between feature maps, a decoder; trained to give images back.

    Args:
        modalities: Keys of the batch; the first gives the fused image its channels.
        colour: `channels` fuses each channel of the first modality with the others in grey; `luma` fuses its luma and
            keeps its colour differences.
        width: Channels that each layer of the dense block adds; 16 in the paper.
        rule: How maps are fused: `mean`, or weighted by their activity, `l1` (eqs. 4–6).
        similarity: Weight of 1 − SSIM beside the squared error.
    """

    def __init__(
        self,
        *,
        modalities: tuple[str, ...] = PAIR,
        colour: Colour = "channels",
        width: Annotated[int, Field(gt=0)] = 16,
        rule: Literal["mean", "l1"] = "l1",
        similarity: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__(modalities, colour)
        self.rule = rule
        self.similarity = similarity
        self.first = nn.Conv2d(1, width, 3, padding=1, padding_mode="reflect")
        self.dense = nn.ModuleList(
            nn.Conv2d(width * (i + 1), width, 3, padding=1, padding_mode="reflect") for i in range(_BLOCK)
        )
        wide = width * (_BLOCK + 1)
        widths = (wide, wide, wide // 2, max(wide // 4, 1))
        pairs = pairwise(widths)
        self.decoder = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, padding_mode="reflect") for a, b in pairs)
        self.last = nn.Conv2d(widths[-1], 1, 3, padding=1, padding_mode="reflect")

    def encode(self, layers: Tensor) -> Tensor:
        """Return the maps (N, 4 · width, H, W) of single channels (N, 1, H, W) in [−1, 1]."""
        h = functional.relu(self.first(layers))
        for layer in self.dense:
            h = torch.cat([h, functional.relu(layer(h))], 1)
        return h

    def decode(self, maps: Tensor) -> Tensor:
        """Return single channels (N, 1, H, W) of maps."""
        for layer in self.decoder:
            maps = functional.relu(layer(maps))
        shown: Tensor = self.last(maps)
        return shown

    def combine(self, layers: Tensor) -> Tensor:
        """Return what the decoder makes of the fused maps of the layers (K, B, H, W)."""
        maps = torch.stack([self.encode(layer[:, None]) for layer in layers])
        if self.rule == "mean":
            return self.decode(maps.mean(0))[:, 0]
        activity = window_mean(maps.abs().sum(2, keepdim=True), 1).clamp_min(torch.finfo(maps.dtype).tiny)
        return self.decode((activity / activity.sum(0) * maps).sum(0))[:, 0]

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return the one objective, `rebuild`."""
        return [Objective("rebuild", dict(self.named_parameters()), self._loss)]

    def _loss(self, batch: Batch, noise: Noise) -> Loss:
        """Return the squared error and 1 − SSIM of one channel of each modality, drawn for each item."""
        layers = torch.cat([_one_channel(image, noise, key) for key, image in self.given(batch).items()])
        made = self.decode(self.encode(layers))
        error = (made - layers).square().mean()
        terms = {"mse": error.detach()}
        if not self.similarity or min(layers.shape[-2:]) < _SMALL:
            return Loss(error, terms)
        unlike = 1 - ssim(made, layers).mean().to(error.dtype)
        return Loss(error + self.similarity * unlike, {**terms, "unlike": unlike.detach()})


def _one_channel(image: Tensor, noise: Noise, key: str) -> Tensor:
    """Return one channel of each item of (B, C, H, W), (B, 1, H, W)."""
    if image.shape[1] == 1:
        return image
    chosen = noise.integers(image.shape[1], image.device, "channel", key)
    return image[torch.arange(len(image), device=image.device), chosen][:, None]
