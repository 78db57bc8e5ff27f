"""Curves as text."""

import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]

MARKS = "●○▲△■□◆◇"
_WIDTH, _HEIGHT = 64, 14


def plotted(series: Mapping[str, Points], *, title: str = "", width: int = _WIDTH, height: int = _HEIGHT) -> str:
    """Return curves drawn with characters, one mark for each, on common axes; points that are not finite are left out.

    Args:
        series: Name → (x, y) points.
        title: Written above.
        width: Columns of the drawing.
        height: Lines of the drawing.
    """
    kept = {name: [(x, y) for x, y in points if math.isfinite(x + y)] for name, points in series.items()}
    every = [point for points in kept.values() for point in points]
    if not every:
        return f"{title}: nothing to draw".removeprefix(": ")
    (left, right), (low, high) = (_ends([point[axis] for point in every]) for axis in (0, 1))
    canvas = [[" "] * width for _ in range(height)]
    for mark, points in zip(_marks(len(kept)), kept.values(), strict=True):
        for x, y in points:
            column = round((x - left) / (right - left) * (width - 1))
            line = round((high - y) / (high - low) * (height - 1))
            canvas[line][column] = mark
    labels = [f"{high:.4g}", *[""] * (height - 2), f"{low:.4g}"]
    margin = max(map(len, labels))
    lines = [f"{label:>{margin}} │{''.join(row).rstrip()}" for label, row in zip(labels, canvas, strict=True)]
    start, end = f"{left:g}", f"{right:g}"
    lines += [f"{'':>{margin}} └{'─' * width}", f"{'':>{margin}}  {start}{end:>{width - len(start)}}"]
    legend = "   ".join(f"{mark} {name}" for mark, name in zip(_marks(len(kept)), kept, strict=True))
    return "\n".join([*([title] if title else []), *lines, f"{'':>{margin}}  {legend}"])


def _marks(count: int) -> str:
    return (MARKS * (count // len(MARKS) + 1))[:count]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
