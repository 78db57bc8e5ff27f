"""Wording: numbers, spans and lists as the page says them."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def whole(value: int) -> str:
    """Return 35746307 as 35 746 307, with thin spaces."""
    return f"{value:,}".replace(",", "\u202f")


def figure(value: float | None) -> str:
    """Return a measured value with four digits, and a dash where it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.3e}".replace("-", "−")
    return (f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}").replace("-", "−")


def duration(seconds: float) -> str:
    """Return a span of time in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def spans(numbers: Sequence[int]) -> str:
    """Return 0, 1, 2, 3, 7 as 0–3, 7."""
    found: list[list[int]] = []
    for value in numbers:
        if found and value == found[-1][1] + 1:
            found[-1][1] = value
        else:
            found.append([value, value])
    texts = [str(low) if low == high else f"{low}–{high}" for low, high in found]
    return ", ".join(texts if len(texts) <= 8 else [*texts[:8], "…"])


def listed(items: Iterable[object], most: int = 12) -> str:
    """Return items after commas, cut short where there are many."""
    texts = [str(item) for item in items]
    return ", ".join(texts if len(texts) <= most else [*texts[:most], f"and {len(texts) - most} more"])


def plain(value: Any) -> str:
    """Return a value of a recipe as YAML would say it on one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return listed([plain(item) for item in value])
    return str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    """Return a table; cells are HTML, those of the columns `numbers` stand to the right."""
    right = set(numbers)

    def cells(tag: str, row: Sequence[str]) -> str:
        marks = [' class="n"' if i in right else "" for i in range(len(row))]
        return "".join(f"<{tag}{mark}>{cell}</{tag}>" for mark, cell in zip(marks, row, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values as a list of definitions; both are text."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{items}</dl>' if items else ""
