"""Pictures of tensors: a contact sheet of images (N, C, H, W) in [−1, 1], readable at any size.

How bands are shown: one is grey; two stand beside each other, each grey; of three or more those named by `bands`
are red, green and blue, by default the first three. Small images grow by a whole factor, every pixel staying a
square of one colour, so what is seen is what was made. Values beyond [−1, 1] are clipped; where a pixel is not
finite it is magenta.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

GAP = 2
BACKGROUND = (24, 26, 31)
INK = (203, 207, 214)
_NOT_FINITE = (255, 0, 255)
_HEAD = 20
_SMALL = 64
_TEXT = 13


def grid(
    images: "Tensor | ArrayLike",
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    *,
    bands: Sequence[int] | None = None,
) -> Image.Image:
    """Return images on one sheet, row by row.

    Args:
        images: (N, C, H, W) in [−1, 1], a tensor or an array, any C.
        columns: Images in a row; about as many as rows by default.
        labels: One text for each column, written above it.
        bands: Indices of the bands to show as red, green and blue.

    Returns:
        An RGB picture. With tiles of h × w pixels, factor f and the head's height t (0 without labels), pixel
        (t + GAP + (f·h + GAP)·row, GAP + (f·w + GAP)·column) is the corner of a tile.
    """
    tiles = tiled(images, bands)
    count = len(tiles)
    columns = min(columns or near_square(count), count)
    factor = enlargement(tiles.shape[1], tiles.shape[2], columns)
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = tiles.shape[1], tiles.shape[2]
    head = _HEAD if labels and any(labels) else 0
    rows = -(-count // columns)
    size = (GAP + (width + GAP) * columns, head + GAP + (height + GAP) * rows)
    sheet = Image.new("RGB", size, BACKGROUND)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        sheet.paste(Image.fromarray(tile), (GAP + (width + GAP) * column, head + GAP + (height + GAP) * row))
    if head and labels:
        _write_labels(sheet, labels[:columns], width)
    return sheet


def trajectory(frames: "Tensor | ArrayLike", *, bands: Sequence[int] | None = None) -> Image.Image:
    """Return the way from noise to image on one sheet: a row per item, a column per state.

    Args:
        frames: (states, N, C, H, W) in [−1, 1], from noise to image.
        bands: Indices of the bands to show as red, green and blue.
    """
    array = _array(frames).swapaxes(0, 1)
    items, states = array.shape[:2]
    ends = ["noise", *[""] * (states - 2), "image"] if states > 1 else None
    return grid(array.reshape(items * states, *array.shape[2:]), states, ends, bands=bands)


def tiled(images: "Tensor | ArrayLike", bands: Sequence[int] | None = None) -> "Pixels":
    """Return images (N, C, H, W) in [−1, 1] as they are shown: (N, H, W or 2W, 3), one byte a value."""
    array = _array(images)
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(f"images are (N, C, H, W), all of them positive; these are {array.shape}")
    channels = array.shape[1]
    if channels == 2:
        array = np.concatenate([array[:, :1], array[:, 1:]], axis=3)
    elif channels >= 3:
        fits = bands is not None and len(bands) == 3 and all(0 <= band < channels for band in bands)
        array = array[:, list(bands) if fits and bands is not None else [0, 1, 2]]
    lost = ~np.isfinite(array).all(axis=1)
    shown = ((np.nan_to_num(array).clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    pixels: Pixels = np.ascontiguousarray(
        np.broadcast_to(shown, (len(shown), 3, *shown.shape[2:])).transpose(0, 2, 3, 1)
    )
    pixels[lost] = _NOT_FINITE
    return pixels


def enlargement(height: int, width: int, columns: int) -> int:
    """Return the whole factor by which tiles grow: none from 64 pixels on, more where there are few columns."""
    side = max(height, width)
    if side >= _SMALL:
        return 1
    return max(1, min(2 * _SMALL, max(_SMALL, 10 * _SMALL // columns)) // side)


def near_square(count: int) -> int:
    """Return how many columns make a sheet of `count` images about as wide as high; a divisor where one is near."""
    root = math.ceil(math.sqrt(count))
    return next((c for c in range(root, root + root // 2 + 1) if count % c == 0), root)


def _array(values: "Tensor | ArrayLike") -> "np.ndarray[Any, np.dtype[np.float32]]":
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def _write_labels(sheet: Image.Image, labels: Sequence[str], width: int) -> None:
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_TEXT)
    for column, label in enumerate(labels):
        text = _fitted(draw, label, width, font)
        middle = GAP + (width + GAP) * column + width // 2
        draw.text((middle, GAP + _HEAD // 2), text, fill=INK, font=font, anchor="mm")


def _fitted(draw: ImageDraw.ImageDraw, text: str, width: int, font: Any) -> str:
    """Return the text, cut short where it is wider than its column."""
    if draw.textlength(text, font=font) <= width:
        return text
    kept = next((n for n in range(len(text), 0, -1) if draw.textlength(f"{text[:n]}…", font=font) <= width), 0)
    return f"{text[:kept]}…" if kept else ""
