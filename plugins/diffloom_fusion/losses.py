"""What a fused image is asked to be: as bright as a target, its edges as strong as the strongest (Yue et al. 2023).

All of images in [−1, 1]; V is the first modality, the others are brought to its channels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from diffloom_fusion.blend import grey
from diffloom_fusion.rules import window_mean

Target = Literal["max", "mean", "luma-max", "salient", "active"]

_WINDOW = 8  # radius, in pixels
_CLEARLY = 0.1  # brighter, in [−1, 1]
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def target(rule: Target, first: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Return how bright the fused image should be, (B, C, H, W).

    `max` is the brightest of each channel (eq. 9); `mean` the mean. `luma-max` adds to every channel of the first
    modality what its luma lacks to the brightest, which keeps colour differences. `salient` adds of that the share by
    which the others stand out from their own image: w = clamp((S − mean S)/(max S − mean S), 0, 1) of each image S, so
    that only what is bright among its like is taken. `active` adds it whole, but only where another modality
    is clearly brighter and its edges are stronger than the first's in a window of 17×17: it has more to show there.

    Args:
        rule: Which.
        first: The modality whose channels and colours count, (B, C, H, W).
        others: The others, each (B, any, H, W).
    """
    if rule in ("max", "mean"):
        layers = torch.stack([first, *(grey(other).expand_as(first) for other in others)])
        return layers.amax(0) if rule == "max" else layers.mean(0)
    lifted, light = torch.zeros_like(first[:, :1]), grey(first)
    for other in map(grey, others):
        share = torch.ones_like(light)
        if rule == "salient":
            share = standing_out(other)
        elif rule == "active":
            busier = window_mean(gradient(other) - gradient(light), _WINDOW) > 0
            share = (busier & (other - light > _CLEARLY)).to(light.dtype)
        lifted = torch.maximum(lifted, share * (other - light))
    return first + lifted


def standing_out(image: Tensor) -> Tensor:
    """Return how far each pixel of (B, 1, H, W) stands out above its image's mean: 0 below it, 1 at the brightest."""
    mean = image.mean((2, 3), keepdim=True)
    reach = (image.amax((2, 3), keepdim=True) - mean).clamp_min(torch.finfo(image.dtype).eps)
    return ((image - mean) / reach).clamp(0, 1)


def gradient(image: Tensor) -> Tensor:
    """Return |Sobel_x| + |Sobel_y| of each channel of (B, C, H, W), the border reflected (eq. 11)."""
    across = image.new_tensor(_SOBEL)
    kernels = torch.stack([across, across.T.flip(0)])[:, None]
    flat = functional.pad(image.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="reflect")
    return functional.conv2d(flat, kernels).abs().sum(1).view_as(image)


def intensity_loss(fused: Tensor, wanted: Tensor) -> Tensor:
    """Return L_MCI of each item, (B,): the mean of |F − target| (eq. 9)."""
    return (fused - wanted).abs().flatten(1).mean(1)


def gradient_loss(fused: Tensor, first: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Return L_MCG of each item, (B,): the mean of ||∇F| − max_k |∇S_k|| (eq. 10)."""
    layers = [gradient(first), *(gradient(grey(other)).expand_as(first) for other in others)]
    return (gradient(fused) - torch.stack(layers).amax(0)).abs().flatten(1).mean(1)


def colour_loss(fused: Tensor, first: Tensor) -> Tensor:
    """Return each item's mean |ΔF − ΔV|, (B,), Δ being what a channel differs by from the image's luma."""
    return ((fused - grey(fused)) - (first - grey(first))).abs().flatten(1).mean(1)
