"""Degrade: real-world damage made on purpose, in two orders (Real-ESRGAN; the ranges are StableSR's).

    order 1   blur → resize → noise → JPEG
    order 2   blur → resize → noise
    tail      (resize → sinc → JPEG) or (JPEG → resize → sinc)

All work is on values in 0 … 1, any number of bands; the sample keeps its `image` and gains `low_res`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from kornia.enhance import jpeg_codec_differentiable
from kornia.filters import filter2d
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from diffloom.data import Sample, Transform
from diffloom.errors import DataError
from diffloom_stablesr import kernels
from diffloom_stablesr.kernels import chance, uniform

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
Quality = tuple[Annotated[float, Field(ge=1, le=100)], Annotated[float, Field(ge=1, le=100)]]
Filter = Literal["area", "bilinear", "bicubic"]

_FILTERS: tuple[Filter, ...] = ("area", "bilinear", "bicubic")
_COLOURS = 3
_LUMA = (0.299, 0.587, 0.114)


class Order(BaseModel):
    """One order of damage. Ranges are drawn from evenly."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blur: Annotated[Probability, Field(description="Probability of blur.")] = 1.0
    sigma: Annotated[Range, Field(description="Standard deviations of the blur, in pixels.")] = (0.2, 1.5)
    sinc: Annotated[Probability, Field(description="Probability that the blur is a sinc, which rings.")] = 0.1
    resize: Annotated[Range, Field(description="Least and largest factor of resizing.")] = (0.3, 1.5)
    directions: Annotated[
        tuple[Probability, Probability, Probability], Field(description="Probabilities of up, down and keep.")
    ] = (0.2, 0.7, 0.1)
    gaussian: Annotated[Probability, Field(description="Probability of Gaussian noise; else Poisson noise.")] = 0.5
    noise: Annotated[Range, Field(description="Standard deviation of Gaussian noise, in 255ths.")] = (1.0, 15.0)
    poisson: Annotated[Range, Field(description="Scale of Poisson noise.")] = (0.05, 2.0)
    grey: Annotated[Probability, Field(description="Probability that all bands have the same noise.")] = 0.4


SECOND = Order(
    blur=0.5,
    sigma=(0.2, 1.0),
    resize=(0.6, 1.2),
    directions=(0.3, 0.4, 0.3),
    noise=(1.0, 12.0),
    poisson=(0.05, 1.0),
)


class Degrade(Transform):
    """Adds `low_res` (C, H/scale, W/scale) in [−1, 1]: the image as a bad camera and a bad archive would show it.

    JPEG works on three bands as colour; any other number of bands is coded band by band as grey. Where an image is
    spared (`pure`), `low_res` is its bicubic, antialiased reduction.

    Args:
        scale: How many times smaller `low_res` is along each side.
        first: The first order of damage.
        second: The second order; its resizing counts from the final size.
        jpeg: Quality of the first JPEG.
        last_jpeg: Quality of the second one.
        last_sinc: Probability of the final sinc.
        sizes: Least and largest side of a kernel, odd.
        pure: Probability that nothing is done but reducing.

    Raises:
        DataError: The image's sides do not divide by the scale, or are too short for the kernels.
    """

    adds = ("low_res",)
    examples: ClassVar[Sequence[dict[str, Any]]] = ({}, {"scale": 2, "pure": 1.0})

    def __init__(
        self,
        *,
        scale: Annotated[int, Field(ge=1, le=32)] = 4,
        first: Order = Order(),  # noqa: B008  frozen
        second: Order = SECOND,
        jpeg: Quality = (60.0, 95.0),
        last_jpeg: Quality = (60.0, 100.0),
        last_sinc: Probability = 0.8,
        sizes: tuple[Annotated[int, Field(ge=3, le=63)], Annotated[int, Field(ge=3, le=63)]] = (7, 21),
        pure: Probability = 0.01,
    ) -> None:
        self.scale = scale
        self.first = first
        self.second = second
        self.jpeg = jpeg
        self.last_jpeg = last_jpeg
        self.last_sinc = last_sinc
        self.sizes = sizes
        self.pure = pure

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Return the sample with `low_res`."""
        image: Tensor = sample["image"]
        if any(side % self.scale for side in image.shape[-2:]):
            raise DataError(
                "the image does not divide by the scale",
                where="the transform degrade",
                expected=f"sides that are multiples of {self.scale}",
                got=" × ".join(map(str, image.shape[-2:])),
                remedy="crop the images first",
            )
        x = ((image + 1) / 2).clamp(0, 1)[None]
        low = self.reduced(x) if chance(generator, self.pure) else self.damaged(x, generator)
        return {**sample, "low_res": low[0].clamp(0, 1) * 2 - 1}

    def reduced(self, x: Tensor) -> Tensor:
        """Return images (B, C, H, W) reduced by the scale, bicubic."""
        if self.scale == 1:
            return x
        return functional.interpolate(x, size=self._target(x), mode="bicubic", antialias=True)

    def damaged(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return an image (1, C, H, W) in 0 … 1 after both orders and the tail, (1, C, H/scale, W/scale)."""
        target = self._target(x)
        height, width = x.shape[-2:]
        x = self._order(x, self.first, (height, width), generator)
        x = jpeg(x.clamp(0, 1), uniform(generator, self.jpeg))
        x = self._order(x, self.second, target, generator)
        size = 2 * kernels.integer(generator, self.sizes[0] // 2, self.sizes[1] // 2) + 1
        cutoff = uniform(generator, (math.pi / 3, math.pi))
        ring = kernels.sinc(size, cutoff) if chance(generator, self.last_sinc) else None
        quality = uniform(generator, self.last_jpeg)
        mode = _FILTERS[kernels.integer(generator, 0, 2)]
        if chance(generator, 0.5):
            return jpeg(blurred(_resized(x, target, mode), ring).clamp(0, 1), quality)
        return blurred(_resized(jpeg(x.clamp(0, 1), quality), target, mode), ring).clamp(0, 1)

    def _order(self, x: Tensor, order: Order, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Return x after one order of damage; its resizing counts from `size`."""
        if chance(generator, order.blur):
            kernel = kernels.draw(
                generator, sizes=self.sizes, sigma=order.sigma, shapes=SHAPES, sinc_probability=order.sinc
            )
            x = blurred(x, kernel)
        factor = _factor(order, generator)
        mode = _FILTERS[kernels.integer(generator, 0, 2)]
        x = _resized(x, (max(1, round(size[0] * factor)), max(1, round(size[1] * factor))), mode)
        grey = chance(generator, order.grey)
        if chance(generator, order.gaussian):
            return gaussian_noise(x, uniform(generator, order.noise) / 255, generator, grey=grey)
        return poisson_noise(x, uniform(generator, order.poisson), generator, grey=grey)

    def _target(self, x: Tensor) -> tuple[int, int]:
        return x.shape[-2] // self.scale, x.shape[-1] // self.scale


SHAPES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
"""Probabilities of the kernels' shapes, as Real-ESRGAN has them."""


def blurred(x: Tensor, kernel: Tensor | None) -> Tensor:
    """Return images (B, C, H, W) under a kernel (k, k), mirrored at the edges; as they are where there is none."""
    if kernel is None:
        return x
    shortest = min(x.shape[-2:])
    if kernel.shape[-1] // 2 >= shortest:  # a mirror shows no more than there is
        edge = (kernel.shape[-1] - (2 * shortest - 1)) // 2
        kernel = kernel[edge:-edge, edge:-edge] if edge else kernel
        kernel = kernel / kernel.sum()
    return cast(Tensor, filter2d(x, kernel[None].to(x), border_type="reflect"))


def gaussian_noise(x: Tensor, std: float, generator: torch.Generator, *, grey: bool) -> Tensor:
    """Return x with Gaussian noise; with `grey`, the same in all bands."""
    shape = (x.shape[0], 1 if grey else x.shape[1], *x.shape[2:])
    return x + std * torch.randn(shape, generator=generator, dtype=x.dtype)


def poisson_noise(x: Tensor, scale: float, generator: torch.Generator, *, grey: bool) -> Tensor:
    """Return x with the noise of counted photons, enlarged `scale` times.

    As many photons make full brightness as the image has values of 8 bits, rounded up to a power of two.
    """
    seen = _grey(x) if grey else x
    seen = seen.clamp(0, 1).mul(255).round().div(255)
    photons = 1 << math.ceil(math.log2(max(2, len(torch.unique(seen)))))
    noise = torch.poisson(seen * photons, generator=generator) / photons - seen
    return x + scale * noise


def jpeg(x: Tensor, quality: float) -> Tensor:
    """Return images (B, C, H, W) in 0 … 1 after JPEG at a quality of 1 … 100."""
    if x.shape[1] == _COLOURS:
        return cast(Tensor, jpeg_codec_differentiable(x, _qualities(x, quality))).clamp(0, 1)
    bands = x.flatten(0, 1)[:, None].expand(-1, _COLOURS, -1, -1)
    coded: Tensor = jpeg_codec_differentiable(bands, _qualities(bands, quality))
    return coded.mean(1).clamp(0, 1).view_as(x)


def _qualities(x: Tensor, quality: float) -> Tensor:
    return torch.full((len(x),), quality, dtype=x.dtype)


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] != _COLOURS:
        return x.mean(1, keepdim=True)
    weights = x.new_tensor(_LUMA).view(1, -1, 1, 1)
    return torch.sum(x * weights, 1, keepdim=True)


def _factor(order: Order, generator: torch.Generator) -> float:
    low, high = order.resize
    direction = int(torch.multinomial(torch.tensor(order.directions), 1, generator=generator))
    place = uniform(generator, (0.0, 1.0))
    if direction == 0:
        return max(1.0, 1 + (high - 1) * place)
    return min(1.0, low + (1 - low) * place) if direction == 1 else 1.0


def _resized(x: Tensor, size: Sequence[int], mode: Filter) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return functional.interpolate(x, size=tuple(size), mode=mode)
