"""The two filters that hints are drawn with: a Gaussian, and Sobel's gradient. Borders are repeated."""

import torch
from kornia.filters import gaussian_blur2d, spatial_gradient
from torch import Tensor

_STEP = 0.5  # what kornia's normalised Sobel filter answers on a step from black to white


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Return a map (…, H, W) under a Gaussian of `sigma` pixels, out to three of them."""
    size = 2 * max(1, round(3 * sigma)) + 1
    out: Tensor = gaussian_blur2d(x.reshape(1, -1, *x.shape[-2:]), size, (sigma, sigma), border_type="replicate")
    return out.reshape(x.shape)


def gradient(x: Tensor) -> Tensor:
    """Return how a map (H, W) changes across and down, (2, H, W): 1 on both sides of a step from 0 to 1."""
    found: Tensor = spatial_gradient(x[None, None])[0, 0]
    return found / _STEP


def change(x: Tensor) -> Tensor:
    """Return how much a map (H, W) changes, (H, W): the length of its gradient."""
    return torch.hypot(*gradient(x))
