"""The methods that learn nothing: average, maximum, Laplacian pyramid, guided filter. Baselines for those that do.

Law: each gives back an image that is fused with itself.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom_fusion.blend import Colour, Rule

PAIR = ("visible", "infrared")

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_LEAST = 1e-9  # of a weight, so that those of a pixel never sum to nothing
_MEAN_RADIUS, _SALIENCY_RADIUS, _SALIENCY_SIGMA = 15, 5, 5.0


class Average(Rule):
    """The mean of the modalities.

    Args:
        modalities: Keys of the batch; the first gives the fused image its channels.
        colour: `channels` fuses each channel of the first modality with the others in grey; `luma` fuses its luma and
            keeps its colour differences.
    """

    def __init__(self, *, modalities: tuple[str, ...] = PAIR, colour: Colour = "channels") -> None:
        super().__init__(modalities, colour)

    def combine(self, layers: Tensor) -> Tensor:
        """Return the mean of the layers (K, B, H, W)."""
        return layers.mean(0)


class Maximum(Rule):
    """The brightest of the modalities at every pixel.

    Args:
        modalities: Keys of the batch; the first gives the fused image its channels.
        colour: `channels` fuses each channel of the first modality with the others in grey; `luma` fuses its luma and
            keeps its colour differences.
    """

    def __init__(self, *, modalities: tuple[str, ...] = PAIR, colour: Colour = "channels") -> None:
        super().__init__(modalities, colour)

    def combine(self, layers: Tensor) -> Tensor:
        """Return the largest of the layers (K, B, H, W)."""
        return layers.amax(0)


class Laplacian(Rule):
    """A Laplacian pyramid of each modality: of details the strongest, of the rest the mean (Burt & Adelson 1983).

    Args:
        modalities: Keys of the batch; the first gives the fused image its channels.
        colour: `channels` fuses each channel of the first modality with the others in grey; `luma` fuses its luma and
            keeps its colour differences.
        levels: How many bands of detail; fewer in images too small to be halved as often.
    """

    def __init__(
        self,
        *,
        modalities: tuple[str, ...] = PAIR,
        colour: Colour = "channels",
        levels: Annotated[int, Field(gt=0)] = 5,
    ) -> None:
        super().__init__(modalities, colour)
        self.levels = levels

    def combine(self, layers: Tensor) -> Tensor:
        """Return the image of the fused pyramid of the layers (K, B, H, W)."""
        *details, rest = pyramid(layers, self.levels)
        fused = rest.mean(0)
        for detail in reversed(details):
            strongest = detail.abs().argmax(0, keepdim=True)
            fused = detail.gather(0, strongest)[0] + _grown(fused, detail.shape[-2:])
        return fused


class GuidedFilter(Rule):
    """Weights that follow the sources' edges, for base and detail apart (Li, Kang & Hu 2013).

    Args:
        modalities: Keys of the batch; the first gives the fused image its channels.
        colour: `channels` fuses each channel of the first modality with the others in grey; `luma` fuses its luma and
            keeps its colour differences.
        base_radius: Of the window that smooths the base's weights, in pixels.
        base_eps: How much variance counts as flat there, of values in 0 … 1.
        detail_radius: The same of the detail's weights.
        detail_eps: The same of the detail's weights.
    """

    def __init__(
        self,
        *,
        modalities: tuple[str, ...] = PAIR,
        colour: Colour = "channels",
        base_radius: Annotated[int, Field(gt=0)] = 45,
        base_eps: Annotated[float, Field(gt=0)] = 0.3,
        detail_radius: Annotated[int, Field(gt=0)] = 7,
        detail_eps: Annotated[float, Field(gt=0)] = 1e-6,
    ) -> None:
        super().__init__(modalities, colour)
        self.base = (base_radius, base_eps)
        self.detail = (detail_radius, detail_eps)

    def combine(self, layers: Tensor) -> Tensor:
        """Return the weighted sum of bases and details of the layers (K, B, H, W)."""
        images = layers.add(1).div(2)
        salient = saliency(images)
        most = functional.one_hot(salient.argmax(0), len(images)).movedim(-1, 0).to(images.dtype)
        bases = window_mean(images, _MEAN_RADIUS)
        fused = images.new_zeros(images.shape[1:])
        for parts, (radius, eps) in ((bases, self.base), (images - bases, self.detail)):
            weights = guided(images, most, radius, eps).clamp_min(_LEAST)
            fused = fused + (weights * parts).sum(0) / weights.sum(0)
        return fused.mul(2).sub(1)


def pyramid(layers: Tensor, levels: int) -> Iterator[Tensor]:
    """Yield the Laplacian pyramid of layers (K, B, H, W), finest first; last the smoothed image that is left."""
    for _ in range(levels):
        if min(layers.shape[-2:]) < 2:
            break
        smaller = _halved(layers)
        yield layers - _grown(smaller, layers.shape[-2:])
        layers = smaller
    yield layers


def guided(guide: Tensor, image: Tensor, radius: int, eps: float) -> Tensor:
    """Return `image` (…, H, W) smoothed along the edges of `guide` (…, H, W) (He, Sun & Tang 2013, eqs. 5–8)."""
    mean_guide, mean_image = window_mean(guide, radius), window_mean(image, radius)
    variance = window_mean(guide * guide, radius) - mean_guide.square()
    covariance = window_mean(guide * image, radius) - mean_guide * mean_image
    slope = covariance / (variance + eps)
    return window_mean(slope, radius) * guide + window_mean(mean_image - slope * mean_guide, radius)


def saliency(images: Tensor) -> Tensor:
    """Return the smoothed strength of the Laplacian of images (…, H, W) (Li, Kang & Hu 2013, eqs. 4 and 5)."""
    flat = functional.pad(images.reshape(-1, 1, *images.shape[-2:]), (1, 1, 1, 1), mode="replicate")
    kernel = images.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    strength = functional.conv2d(flat, kernel[None, None]).abs()
    places = torch.arange(-_SALIENCY_RADIUS, _SALIENCY_RADIUS + 1, dtype=images.dtype, device=images.device)
    bell = torch.exp(-places.square() / (2 * _SALIENCY_SIGMA**2))
    return _along_both(strength, bell / bell.sum()).reshape(images.shape)


def window_mean(images: Tensor, radius: int) -> Tensor:
    """Return the mean over a square window about each pixel of images (…, H, W); beyond the border there is nothing."""
    side = 2 * radius + 1
    flat = images.reshape(-1, 1, *images.shape[-2:])
    for kernel, padding in (((side, 1), (radius, 0)), ((1, side), (0, radius))):
        flat = functional.avg_pool2d(flat, kernel, stride=1, padding=padding, count_include_pad=False)
    return flat.reshape(images.shape)


def _halved(layers: Tensor) -> Tensor:
    """Return layers (K, B, H, W) smoothed, every second pixel of them."""
    flat = layers.reshape(-1, 1, *layers.shape[-2:])
    smooth = _along_both(flat, layers.new_tensor(_BINOMIAL))[..., ::2, ::2]
    return smooth.reshape(*layers.shape[:2], *smooth.shape[-2:])


def _grown(layers: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return layers (…, h, w) at the size before they were halved."""
    flat = layers.reshape(-1, 1, *layers.shape[-2:])
    grown = functional.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=False)
    return grown.reshape(*layers.shape[:-2], *size)


def _along_both(flat: Tensor, kernel: Tensor) -> Tensor:
    """Return (N, 1, H, W) filtered along rows and columns; the border's pixels go on beyond it."""
    radius = len(kernel) // 2
    flat = functional.pad(flat, (radius,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
