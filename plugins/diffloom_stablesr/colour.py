"""Colours of one image on another's structure (StableSR, section 3.3; any number of bands).

    AdaIN     y = (x − mean x) / std x · std r + mean r          per band, over all pixels
    wavelet   y = x − L(x) + L(r)                                L: the low band

L smooths with k = [1 2 1]ᵀ[1 2 1]/16 again and again, its taps 1, 2, 4, … pixels apart (an à-trous wavelet), edges
repeated; the details x − L(x) keep the structure. L is no projection: L(y) is near L(r), and not equal to it.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Correction = Literal["adain", "wavelet", "none"]
CORRECTIONS = get_args(Correction)

_LEVELS = 5
_EPS = 1e-5


def corrected(x: Tensor, reference: Tensor, how: Correction) -> Tensor:
    """Return images (B, C, H, W) with the colours of references of the same shape."""
    if how == "none":
        return x
    return adain(x, reference) if how == "adain" else wavelet(x, reference)


def adain(x: Tensor, reference: Tensor) -> Tensor:
    """Return images whose bands have the mean and the standard deviation of the reference's."""
    spread, wanted = (torch.sqrt(image.var((2, 3), keepdim=True) + _EPS) for image in (x, reference))
    return (x - x.mean((2, 3), keepdim=True)) / spread * wanted + reference.mean((2, 3), keepdim=True)


def wavelet(x: Tensor, reference: Tensor, levels: int = _LEVELS) -> Tensor:
    """Return the details of x on the low band of the reference."""
    return x + low_band(reference - x, levels)


def low_band(x: Tensor, levels: int = _LEVELS) -> Tensor:
    """Return L(x) after `levels` smoothings; its support is 2^(levels + 1) − 1 pixels wide."""
    channels = x.shape[1]
    taps = x.new_tensor([0.25, 0.5, 0.25])
    down, across = (taps.view(shape).expand(channels, 1, *shape[2:]) for shape in ((1, 1, 3, 1), (1, 1, 1, 3)))
    for level in range(levels):
        apart = 2**level
        padded = functional.pad(x, (apart,) * 4, mode="replicate")
        x = functional.conv2d(padded, down, dilation=(apart, 1), groups=channels)
        x = functional.conv2d(x, across, dilation=(1, apart), groups=channels)
    return x
