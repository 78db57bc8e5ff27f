"""Likelihoods of images under what a decoder says, −ln p(x|z) in nats per item.

`l1` and `l2` are the sums of absolute and squared errors: Laplace of scale 1 and Gaussian of variance ½, each without
its constant. The others are normalised; the width of the Gaussian and the Laplace can be learned, one for all pixels.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from diffloom_ddpm.gaussian import Bins, discretised_log_likelihood

Reconstruction = Literal["l1", "l2", "gaussian", "laplace", "discretised", "bernoulli"]

SPREAD: tuple[Reconstruction, ...] = ("gaussian", "laplace", "discretised")
"""Those that have a width."""

DENSITIES: tuple[Reconstruction, ...] = ("gaussian", "laplace")
"""Those that are densities: of 8-bit images they tell bits per dimension up to the width of a grey level."""


def distortion(kind: Reconstruction, x: Tensor, image: Tensor, log_width: Tensor) -> Tensor:
    """Return −ln p(x|z) per item, float32 (B,).

    Args:
        kind: Which likelihood.
        x: True images, (B, C, H, W) in [−1, 1].
        image: What the decoder says, the mean or the median of p(x|z); for bernoulli 2p − 1.
        log_width: ln of the standard deviation of the Gaussian, of the scale b of the Laplace; 0-d.
    """
    x, image = x.float(), image.float()
    error = image - x
    if kind == "l1":
        terms = error.abs()
    elif kind == "l2":
        terms = error.square()
    elif kind == "gaussian":
        terms = 0.5 * (error * torch.exp(-log_width)).square() + log_width + 0.5 * math.log(2 * math.pi)
    elif kind == "laplace":
        terms = error.abs() * torch.exp(-log_width) + log_width + math.log(2)
    elif kind == "discretised":
        terms = -discretised_log_likelihood(x, image, 2 * log_width, Bins())
    else:
        chances = ((image + 1) / 2).clamp(0, 1)
        terms = functional.binary_cross_entropy(chances, (x + 1) / 2, reduction="none")
    return terms.flatten(1).sum(1)
