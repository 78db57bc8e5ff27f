"""What is printed: data to stdout, notes to stderr, tables of plain text that survive a pipe."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import typer

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
_AMOUNTS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def first_process() -> bool:
    """Tell whether this process speaks for all that work on one run."""
    return os.environ.get("RANK", "0") == "0"


def out(text: str = "") -> None:
    """Print data."""
    if first_process():
        typer.echo(text)


def note(text: str) -> None:
    """Print what is not data: where things are, what went wrong."""
    if first_process():
        typer.echo(text, err=True)


def out_json(data: object) -> None:
    """Print data as JSON; numbers that JSON does not know become null."""
    out(json.dumps(_plain(data), indent=2, ensure_ascii=False))


def aligned(rows: Sequence[Sequence[str]], *, indent: int = 0) -> str:
    """Return rows as lines whose columns begin at the same place."""
    if not rows:
        return ""
    count = max(map(len, rows))
    full = [[*row, *[""] * (count - len(row))] for row in rows]
    widths = [max(len(row[column]) for row in full) for column in range(count)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in full]
    return "\n".join((" " * indent + line).rstrip() for line in lines)


def amount(number: float) -> str:
    """Write a large number short: 35.7 M."""
    for size, letter in _AMOUNTS:
        if abs(number) >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:g}"


def size(count: float) -> str:
    """Write a number of bytes short: 1.2 GiB."""
    step = min(int(math.log(count, 1024)), len(_SIZES) - 1) if count >= 1 else 0
    return f"{count / 1024**step:.3g} {_SIZES[step]}"


def figure(value: float) -> str:
    """Write a measured figure."""
    return "undefined" if math.isnan(value) else f"{value:.5g}"


def table_of_figures(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return sampler → metric → value as a table, a line for each sampler."""
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    rows = [[who, *(figure(row[name]) if name in row else "" for name in names)] for who, row in figures.items()]
    return aligned([["", *names], *rows])


def _plain(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(item) for item in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data if data is None or isinstance(data, str | int | float | bool) else str(data)
