"""A contact sheet: pictures of one size, each under its name."""

import math
from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP, _HEAD, _TEXT = 4, 18, 12
_LEAST, _MOST = 240, 480
_PAPER, _INK = (24, 26, 31), (203, 207, 214)
_COLOURS = 3


def sheet(pictures: Mapping[str, Tensor]) -> Image.Image:
    """Return pictures in rows, about as many as columns.

    Args:
        pictures: Name → (C, H, W) in [0, 1], all of one size: one band is grey, of three and more the first three are
            red, green and blue, and of two the first is shown. Small ones grow by a whole factor, large ones shrink.
    """
    tiles = {name: _tile(picture) for name, picture in pictures.items()}
    width, height = next(iter(tiles.values())).size
    root = math.ceil(math.sqrt(len(tiles)))
    columns = min((root, root + 1), key=lambda count: -len(tiles) % count)
    rows = math.ceil(len(tiles) / columns)
    size = (_GAP + columns * (width + _GAP), _GAP + rows * (height + _HEAD + _GAP))
    made = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(_TEXT)
    for place, (name, tile) in enumerate(tiles.items()):
        row, column = divmod(place, columns)
        left, top = _GAP + column * (width + _GAP), _GAP + row * (height + _HEAD + _GAP)
        draw.text((left + width // 2, top + _HEAD // 2), name, fill=_INK, font=font, anchor="mm")
        made.paste(tile, (left, top + _HEAD))
    return made


def _tile(picture: Tensor) -> Image.Image:
    shown = (picture[:_COLOURS] if len(picture) >= _COLOURS else picture[:1]).expand(_COLOURS, -1, -1)
    pixels = (shown.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    tile = Image.fromarray(pixels)
    side = max(tile.size)
    if side > _MOST:
        return tile.resize(_scaled(tile.size, _MOST / side), Image.Resampling.BOX)
    return tile.resize(_scaled(tile.size, max(1, _LEAST // side)), Image.Resampling.NEAREST)


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
