"""Pictures inside the page: as data, so that the page needs no other file."""

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image, UnidentifiedImageError

_LARGEST = 1_500_000
_WIDEST = 2000


def picture(file: Path, *, says: str, width: int | None = None) -> str:
    """Return an `img` element that holds a picture; nothing where the file is no picture.

    Args:
        file: A PNG file; it is embedded byte for byte unless it is very large.
        says: What it shows, for readers that do not see it.
        width: Shrink it to this many pixels, where it is wider.
    """
    try:
        content = file.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            size = opened.size
            limit = width or _WIDEST
            kind = "png"
            if size[0] > limit or len(content) > _LARGEST:
                content, size = _shrunk(opened, limit)
                kind = "jpeg"
    except (OSError, UnidentifiedImageError):
        return ""
    data = base64.b64encode(content).decode()
    return (
        f'<img src="data:image/{kind};base64,{data}" width="{size[0]}" height="{size[1]}" '
        f'alt="{escape(says)}" decoding="async">'
    )


def _shrunk(image: Image.Image, width: int) -> tuple[bytes, tuple[int, int]]:
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=88)
    return buffer.getvalue(), image.size
