"""Reading image files of any mode into tensors, by one stated rule.

Values: 8-bit are v/255; 16-bit and 32-bit whole numbers are v/65535; floating point is taken as it is and
must lie in [0, 1]; all are then mapped to [−1, 1]. Pillow itself reduces 16-bit *colour* to 8 bits.

Channels: a palette is looked up; CMYK, YCbCr and the like become RGB. Asked for 1 channel, colour becomes
luma (0.299 R + 0.587 G + 0.114 B, ITU-R 601); asked for 3, grey is repeated; both lay transparent pixels over
black. Asked for 4, an image without transparency is opaque. The orientation that a camera noted is applied.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from diffloom.errors import DataError

SUFFIXES = frozenset(
    (
        ".bmp",
        ".gif",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    )
)
"""Endings, in lower case, of the files that are taken for images."""

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")
_LUMA = (0.299, 0.587, 0.114)
_ORIENTATION, _QUARTER_TURNED = 0x0112, (5, 6, 7, 8)


def read_image(path: Path, channels: int) -> Tensor:
    """Return the image in `path`, float32 (channels, H, W) in [−1, 1]; `channels` is 1, 3 or 4.

    Raises:
        DataError: The file cannot be read as an image; it names the file and says why.
    """
    try:
        with Image.open(path) as file:
            file.load()
            pixels = _pixels(ImageOps.exif_transpose(file))
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    return to_channels(pixels, channels).mul_(2).sub_(1)


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of the image in `path` from its header; DataError where it has no good one."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            noted = file.format != "PNG" or "exif" in file.info  # else Pillow would look behind the pixels
            turned = noted and file.getexif().get(_ORIENTATION) in _QUARTER_TURNED
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def to_channels(pixels: Tensor, channels: int) -> Tensor:
    """Return `pixels` (1, 3 or 4, H, W) in [0, 1], the fourth being opacity, with `channels` of them."""
    if channels == len(pixels):
        return pixels.clone()
    if channels == 4:
        return torch.cat([to_channels(pixels, 3), torch.ones_like(pixels[:1])])
    if len(pixels) == 4:
        pixels = pixels[:3] * pixels[3:]
    if channels == 3:
        return pixels.expand(3, -1, -1).clone()
    if len(pixels) == 1:
        return pixels.clone()
    return (pixels * pixels.new_tensor(_LUMA).view(3, 1, 1)).sum(0, keepdim=True)


def _pixels(image: Image.Image) -> Tensor:
    """Return (1, 3 or 4, H, W) float32 in [0, 1]."""
    mode = image.mode
    if mode == "F":
        return _within(np.asarray(image, dtype=np.float64), 1.0, "floating-point values must lie in 0 … 1")
    if mode == "I" or mode.startswith("I;16"):
        return _within(np.asarray(image, dtype=np.float64), 65535.0, "whole numbers must lie in 0 … 65535")
    if mode in _TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
    else:
        image = image.convert("L" if mode in ("1", "L") else "RGB")
    values = torch.from_numpy(np.array(image)).float() / 255
    return values.unsqueeze(0) if values.dim() == 2 else values.permute(2, 0, 1)


def _within(values: NDArray[np.float64], highest: float, rule: str) -> Tensor:
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= highest):
        raise ValueError(f"{rule}, and these go from {values.min():g} to {values.max():g}")
    return torch.from_numpy((values / highest).astype(np.float32)).unsqueeze(0)


def _unreadable(path: Path, error: BaseException) -> DataError:
    try:
        empty = path.stat().st_size == 0
    except OSError:
        empty = False
    reason = "it has no bytes at all" if empty else str(error).replace(repr(str(path)), "it") or type(error).__name__
    return DataError(
        "the file cannot be read as an image",
        where=str(path),
        got=reason,
        remedy="mend or remove the file, or set `bad: skip` to go on without it",
    )
