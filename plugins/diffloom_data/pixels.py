"""What data sets and transforms do to pixels. Images are (…, H, W), with any leading dimensions."""

import torch
from torch import Tensor
from torch.nn import functional


def resize(image: Tensor, size: tuple[int, int], *, nearest: bool = False) -> Tensor:
    """Return `image` (…, H, W) at another size (…, h, w), of the same type.

    Bicubic (Keys 1981, a = −1/2, as Pillow's), antialiased where it shrinks, held to the range of the values
    that went in, which it would else overshoot. `nearest` takes existing values only: for masks and indices.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image.clone()
    if nearest or not image.is_floating_point():
        rows = _centres(image.shape[-2], size[0], image.device)
        columns = _centres(image.shape[-1], size[1], image.device)
        return image.index_select(-2, rows).index_select(-1, columns)
    flat = image.reshape(-1, 1, *image.shape[-2:])
    out = functional.interpolate(flat, size=size, mode="bicubic", antialias=True)
    return out.clamp_(*torch.aminmax(flat)).reshape(*image.shape[:-2], *size)


def centre_crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the window (…, h, w) in the middle of `image` (…, H, W), which is at least as large."""
    top, left = ((have - want) // 2 for have, want in zip(image.shape[-2:], size, strict=True))
    return image[..., top : top + size[0], left : left + size[1]]


def fit(image: Tensor, size: tuple[int, int], *, nearest: bool = False) -> Tensor:
    """Return `image` (…, H, W) scaled in proportion to just cover `size`, then cropped at the centre."""
    scale = max(want / have for want, have in zip(size, image.shape[-2:], strict=True))
    height, width = (max(s, round(side * scale)) for s, side in zip(size, image.shape[-2:], strict=True))
    return centre_crop(resize(image, (height, width), nearest=nearest), size).contiguous()


def _centres(before: int, after: int, device: torch.device) -> Tensor:
    """Return for each new pixel the old one that its centre falls into, int64 (after,)."""
    places = (torch.arange(after, device=device, dtype=torch.float64) + 0.5) * (before / after)
    return places.floor().long().clamp_(max=before - 1)
