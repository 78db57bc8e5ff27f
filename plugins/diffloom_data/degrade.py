"""LowRes: a small, worse image of each image, for learning to enlarge (Zhang et al. 2021, BSRGAN; its light form)."""

import io
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom.data import Sample, Transform
from diffloom.errors import DataError
from diffloom.space import Space
from diffloom_data.pixels import resize

_BLUR, _NOISE, _QUALITY = (0.2, 2.0), (1.0, 15.0), (80, 95)
_COLOUR = 3


class LowRes(Transform):
    """Add `low_res` (C, H/factor, W/factor) in [−1, 1], made from the image.

    `bicubic` shrinks with an antialiased filter. `light` blurs with a Gaussian of two widths, shrinks by a
    bicubic, bilinear or averaging filter and adds grey or coloured Gaussian noise of 1 … 15 of 255 levels, in an
    order drawn anew for every sample; then it compresses as JPEG of quality 80 … 95, bands other than red, green and
    blue each by itself.

    Args:
        factor: How many times smaller; divides the image's sides.
        method: How it is made worse.
    """

    adds = ("low_res",)
    examples = ({"factor": 2}, {"factor": 4, "method": "light"})

    def __init__(
        self, *, factor: Annotated[int, Field(gt=1)] = 4, method: Literal["bicubic", "light"] = "bicubic"
    ) -> None:
        self.factor, self.method = factor, method

    def space(self, space: Space) -> Space:
        """Return the same space; DataError where its sides do not divide."""
        self._small(space.size)
        return space

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Return the sample with its image made small."""
        image = sample["image"]
        small = self._small(image.shape[-2:])
        if self.method == "bicubic":
            return sample | {"low_res": resize(image, small)}
        return sample | {"low_res": _light(image, small, generator)}

    def _small(self, size: tuple[int, ...]) -> tuple[int, int]:
        if any(side % self.factor for side in size):
            raise DataError(
                "the image does not shrink to whole pixels",
                where="the transform `low-res`",
                expected=f"sides that are multiples of {self.factor}",
                got="×".join(map(str, size)),
                remedy="put a `resize` or `crop` before it, or take another `factor`",
            )
        return size[0] // self.factor, size[1] // self.factor


@dataclass(frozen=True)
class _Draws:
    """What chance decides about one image."""

    order: list[int]
    widths: tuple[float, float]
    angle: float
    filter: int
    noise: float
    grey: bool
    quality: int

    @classmethod
    def of(cls, generator: torch.Generator) -> "_Draws":
        order = torch.randperm(3, generator=generator).tolist()
        draws = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
        between = [low + d * (high - low) for d, (low, high) in zip(draws[:3], (_BLUR, _BLUR, _NOISE), strict=True)]
        quality = _QUALITY[0] + int(draws[6] * (_QUALITY[1] - _QUALITY[0] + 1))
        widths = (between[0], between[1])
        return cls(order, widths, draws[3] * math.pi, int(draws[4] * 3), between[2], draws[5] < 0.5, quality)


def _light(image: Tensor, small: tuple[int, int], generator: torch.Generator) -> Tensor:
    draws = _Draws.of(generator)
    for step in draws.order:
        if step == 0:
            image = blurred(image, draws.widths, draws.angle)
        elif step == 1:
            image = _shrunk(image, small, draws.filter)
        else:
            size = (1 if draws.grey else len(image), *image.shape[1:])
            image = image + torch.randn(size, generator=generator) * (draws.noise * 2 / 255)
    return compressed(image.clamp(-1, 1), draws.quality)


def blurred(image: Tensor, widths: tuple[float, float], angle: float) -> Tensor:
    """Return an image (C, H, W) filtered by a Gaussian; its borders mirror.

    Args:
        image: Sides of at least 2.
        widths: Standard deviations along two axes at right angles, in pixels.
        angle: Of the first axis against the rows, in radians.
    """
    reach = min(math.ceil(3 * max(widths)), min(image.shape[1:]) - 1)
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = at[:, None], at[None, :]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    kernel = torch.exp(-0.5 * ((along / widths[0]).square() + (across / widths[1]).square()))
    kernel = (kernel / kernel.sum()).to(image.dtype)
    padded = functional.pad(image[None], (reach,) * 4, mode="reflect")
    return functional.conv2d(padded.transpose(0, 1), kernel[None, None])[:, 0]


def compressed(image: Tensor, quality: int) -> Tensor:
    """Return an image (C, H, W) in [−1, 1] after JPEG; three bands as colour, others one by one."""
    levels = image.add(1).mul(127.5).round().byte()
    groups = [levels] if len(levels) == _COLOUR else list(levels[:, None])
    parts = []
    for group in groups:
        pixels = group.permute(1, 2, 0).numpy() if len(group) == _COLOUR else group[0].numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        back = torch.from_numpy(np.array(Image.open(file)))
        parts.append(back.permute(2, 0, 1) if back.dim() == 3 else back[None])
    return torch.cat(parts).float().div(127.5).sub(1)


def _shrunk(image: Tensor, small: tuple[int, int], which: int) -> Tensor:
    if which == 0:
        return resize(image, small)
    if which == 1:
        return functional.interpolate(image[None], small, mode="bilinear", antialias=True)[0]
    return functional.adaptive_avg_pool2d(image[None], small)[0]
