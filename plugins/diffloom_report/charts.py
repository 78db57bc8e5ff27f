"""Charts as SVG text: curves over an axis, drawn by these lines alone, coloured by the page around them.

An axis maps values to [0, 1], linearly or by the logarithm, and has a handful of round ticks. Colours are the classes
`c0`, `c1`, … of the page's style sheet, so a chart is as readable in the dark as in the light.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

Points = Sequence[tuple[float, float]]

_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 34
_MOST_POINTS = 360
_COLOURS = 6


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: What the legend calls it.
        points: (x, y), finite, ascending in x.
        marked: Whether every point has a mark, and a text that is shown when pointed at.
        faint: Whether it stays behind the others, as the unsmoothed form of one that is drawn.
        colour: Which of the page's colours.
    """

    name: str
    points: Points
    marked: bool = False
    faint: bool = False
    colour: int = 0


class Axis:
    """A map from values to [0, 1] with round ticks.

    Args:
        values: What must find room.
        log: Map the logarithm; taken back where a value is not positive.
        ticks: Where the ticks stand; chosen by default.
        most: About how many ticks are chosen.
    """

    def __init__(
        self, values: Iterable[float], *, log: bool = False, ticks: Sequence[float] | None = None, most: int = 5
    ) -> None:
        known = list(values) or [0.0, 1.0]
        low, high = min(known), max(known)
        self.log = log and low > 0
        if low == high:
            low, high = (
                (low / 1.5, high * 1.5) if self.log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
            )
        self.low, self.high = low, high
        chosen = list(ticks or (log_ticks(low, high, most) if self.log else linear_ticks(low, high, most)))
        if self.log and len(chosen) < 3:
            chosen = linear_ticks(low, high, most)
        self.ticks = [tick for tick in chosen if low <= tick <= high and (tick > 0 or not self.log)]

    def __call__(self, value: float) -> float:
        """Return where a value stands."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Return about `most` values between the bounds that are 1, 2 or 5 times a power of ten apart."""
    unit = 10.0 ** math.floor(math.log10((high - low) / most))
    step = min((unit * factor for factor in (1, 2, 5, 10)), key=lambda step: abs((high - low) / step - most))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most about `most` values between the bounds: powers of ten, with 2 and 5 times them where few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**k for k in powers for f in factors if low <= f * 10.0**k <= high]
        if len(found) <= most + 2:
            return found
    return found[:: -(-len(found) // most)]


def chart(
    series: Sequence[Series],
    *,
    title: str,
    x: Axis | None = None,
    log: bool = False,
    size: tuple[int, int] = (360, 200),
    x_name: str = "step",
) -> str:
    """Return curves as an SVG element.

    Args:
        series: What to draw; the first is behind.
        title: What it shows, for readers that do not see it.
        x: The horizontal axis; linear by default.
        log: Draw the logarithm of y, where all are positive.
        size: Width and height, of which the drawing keeps the ratio.
        x_name: What the horizontal axis is.
    """
    width, height = size
    x = x or Axis((p[0] for one in series for p in one.points), most=max(3, width // 110))
    y = Axis(_padded([p[1] for one in series for p in one.points], log), log=log, most=max(3, height // 45))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across, up = x(point[0]), y(point[1])
        return _LEFT + across * (width - _LEFT - _RIGHT), height - _BOTTOM - up * (height - _TOP - _BOTTOM)

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">']
    for tick in y.ticks:
        _, v = place((x.low, tick))
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{v:.1f}" y2="{v:.1f}"/>')
        parts.append(f'<text class="tick y" x="{_LEFT - 8}" y="{v + 3.5:.1f}">{number(tick)}</text>')
    for tick in x.ticks:
        h, _ = place((tick, y.low))
        parts.append(f'<text class="tick x" x="{h:.1f}" y="{height - _BOTTOM + 15}">{number(tick)}</text>')
    parts.append(f'<text class="axis" x="{width - _RIGHT}" y="{height - 3}">{escape(x_name)}</text>')
    for one in series:
        parts += _curve(one, [place(point) for point in _thinned(one.points)])
    return "".join([*parts, "</svg>"])


def legend(series: Sequence[Series]) -> str:
    """Return the names of the curves beside their colours; nothing for a single one."""
    named = [one for one in series if not one.faint]
    if len(named) < 2:
        return ""
    items = "".join(f'<li><i class="c{one.colour % _COLOURS}"></i>{escape(one.name)}</li>' for one in named)
    return f'<ul class="legend">{items}</ul>'


def smoothed(points: Points, share: float = 0.03) -> list[tuple[float, float]]:
    """Return the average of a curve over about a `share` of its points, exponential to both sides: it does not lag."""
    values = [y for _, y in points]
    forth = running(values, share)
    back = running(values[::-1], share)[::-1]
    return [(x, (a + b) / 2) for (x, _), a, b in zip(points, forth, back, strict=True)]


def running(values: Sequence[float], share: float = 0.03) -> list[float]:
    """Return the exponential average over about a `share` of the values up to each, without bias at the start."""
    decay = 1 - 1 / max(1.0, share * len(values))
    total, weight, found = 0.0, 0.0, []
    for value in values:
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        found.append(total / weight)
    return found


def noisy(points: Points) -> bool:
    """Tell whether a curve turns so often that its average says more than itself."""
    values = [y for _, y in points]
    rises = [b > a for a, b in pairwise(values) if a != b]
    return sum(a != b for a, b in pairwise(rises)) > max(3, len(points) // 10)


def number(value: float) -> str:
    """Return a number as it is read easily: 1500, 12k, 3.2M, 0.012, 5e-5."""
    size = abs(value)
    if not math.isfinite(value):
        return "–"
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if sign == 'k' else limit):.3g}{sign}"
    if size and size < 1e-4:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")
    return (f"{value:.0f}" if size >= 1000 else f"{value:.3g}").replace("-", "−")


def _padded(values: Sequence[float], log: bool) -> list[float]:
    """Return the values with two more, so that curves do not lie on the frame."""
    low, high = min(values, default=0), max(values, default=1)
    if log and low > 0:
        room = (high / low) ** 0.04
        return [*values, low / room, high * room]
    room = 0.04 * (high - low)
    return [*values, low - room, high + room]


def _thinned(points: Points) -> Points:
    """Return at most `_MOST_POINTS` points: means of as many neighbours each, the last point itself."""
    size = -(-len(points) // _MOST_POINTS)
    if size <= 1:
        return points
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    means = [(sum(p[0] for p in g) / len(g), sum(p[1] for p in g) / len(g)) for g in groups]
    return [*means, points[-1]]


def _curve(one: Series, places: Points) -> list[str]:
    path = " ".join(f"{h:.1f},{v:.1f}" for h, v in places)
    colour = f"c{one.colour % _COLOURS}"
    kind = f"curve {colour}" + (" faint" if one.faint else "")
    parts = [f'<polyline class="{kind}" points="{path}"/>']
    if one.marked:
        for (h, v), (at, value) in zip(places, one.points, strict=True):
            said = f"{escape(one.name)}: {value:.4g} at {number(at)}"
            parts.append(f'<circle class="{colour}" cx="{h:.1f}" cy="{v:.1f}" r="3.5"><title>{said}</title></circle>')
    elif len(places) == 1:
        parts.append(f'<circle class="{colour}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3"/>')
    return parts
