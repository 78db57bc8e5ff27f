"""Straight segments by regions of like gradient (Burns, Hanson & Riseman 1986, "Extracting straight lines").

Pixels that change clearly are grouped where they touch and their gradients point into the same eighth of the circle.
That is done twice, with eighths that overlap by half, since a line at the border of two eighths falls apart in one of
the partitions. Every pixel votes for the longer of its two regions, and a region with most of its pixels' votes is a
line: the principal axis of its pixels, weighted by the square of their change. There is no chance in it. Upright, level
and diagonal lines are in the middle of an eighth of the first partition, which is taken where both are about as long.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_EIGHTHS = 8
_TOUCH = np.ones((3, 3))
_MOST = 0.5
_ALIKE = 1.5  # pixels


@dataclass(frozen=True)
class Regions:
    """The regions of one partition.

    Attributes:
        of: Number of the region that each pixel belongs to, (pixels,).
        centre: (regions, 2), row and column.
        along: Unit vectors of their long axes, (regions, 2).
        ends: Where they begin and end along the axis, from the centre, (regions, 2), in pixels.
        width: Standard deviation of their pixels across the axis, (regions,).
    """

    of: Ints
    centre: Floats
    along: Floats
    ends: Floats
    width: Floats

    @property
    def length(self) -> Floats:
        """How long they are, in pixels."""
        return np.asarray(self.ends[:, 1] - self.ends[:, 0])


def segments(across: Floats, down: Floats, *, strength: float, length: float, width: float) -> Floats:
    """Return the straight segments of an image, (n, 2, 2): two ends, each row and column, the longest first.

    Args:
        across: Its gradient from left to right, (H, W).
        down: Its gradient from top to bottom, (H, W).
        strength: Least length of the gradient of a pixel on a line.
        length: Least length of a line, in pixels.
        width: Largest standard deviation of a line's pixels across it.
    """
    change = np.hypot(across, down)
    rows, columns = np.nonzero(change > strength)
    if not len(rows):
        return np.zeros((0, 2, 2))
    places = np.stack([rows, columns], 1).astype(np.float64)
    weights = change[rows, columns] ** 2
    angle = np.arctan2(down, across) * (_EIGHTHS / (2 * math.pi))
    partitions = [
        _fitted(_labelled(change > strength, np.floor(angle + shift).astype(np.int64) % _EIGHTHS), places, weights)
        for shift in (0.5, 0.0)
    ]
    first, second = (regions.length[regions.of] for regions in partitions)
    for_first = first >= second - _ALIKE
    found = [_lines(r, votes, length, width) for r, votes in zip(partitions, (for_first, ~for_first), strict=True)]
    lines = np.concatenate(found)
    lengths = np.linalg.norm(lines[:, 1] - lines[:, 0], axis=1)
    return np.asarray(lines[np.argsort(-lengths, kind="stable")])


def drawn(lines: Floats, size: tuple[int, int], width: float) -> Floats:
    """Return segments (n, 2, 2) as lines of `width` pixels with soft borders, (H, W) in [0, 1]."""
    canvas = np.zeros(size)
    margin = width / 2 + 1
    for start, end in lines:
        low = np.maximum(np.floor(np.minimum(start, end) - margin), 0).astype(int)
        high = np.minimum(np.ceil(np.maximum(start, end) + margin) + 1, size).astype(int)
        y, x = np.mgrid[low[0] : high[0], low[1] : high[1]]
        step = end - start
        share = ((y - start[0]) * step[0] + (x - start[1]) * step[1]) / max(float(step @ step), 1e-12)
        share = share.clip(0, 1)
        away = np.hypot(y - start[0] - share * step[0], x - start[1] - share * step[1])
        part = canvas[low[0] : high[0], low[1] : high[1]]
        np.maximum(part, (width / 2 + 0.5 - away).clip(0, 1), out=part)
    return canvas


def _labelled(changes: NDArray[np.bool_], eighth: Ints) -> Ints:
    """Return for each pixel that changes the number of its region, from 0."""
    numbers = np.zeros(changes.shape, dtype=np.int64)
    count = 0
    for direction in range(_EIGHTHS):
        labels, found = ndimage.label(changes & (eighth == direction), structure=_TOUCH)
        numbers = np.where(labels > 0, labels + count - 1, numbers)
        count += found
    return numbers[changes]


def _fitted(of: Ints, places: Floats, weights: Floats) -> Regions:
    """Return the regions with their principal axes."""
    count = int(of.max()) + 1
    mass = np.bincount(of, weights, count)

    def mean(values: Floats) -> Floats:
        return np.asarray(np.bincount(of, weights * values, count) / mass)

    centre = np.stack([mean(places[:, 0]), mean(places[:, 1])], 1)
    off = places - centre[of]
    yy, xx, yx = mean(off[:, 0] ** 2), mean(off[:, 1] ** 2), mean(off[:, 0] * off[:, 1])
    angle = 0.5 * np.arctan2(2 * yx, xx - yy)
    along = np.stack([np.sin(angle), np.cos(angle)], 1)
    spread = np.hypot((xx - yy) / 2, yx)
    width = np.sqrt(np.maximum((xx + yy) / 2 - spread, 0))
    place = (off * along[of]).sum(1)
    ends = np.stack([np.full(count, np.inf), np.full(count, -np.inf)], 1)
    np.minimum.at(ends[:, 0], of, place)
    np.maximum.at(ends[:, 1], of, place)
    return Regions(of, centre, along, ends, width)


def _lines(regions: Regions, votes: NDArray[np.bool_], length: float, width: float) -> Floats:
    """Return the regions that are lines, (n, 2, 2)."""
    count = len(regions.width)
    support = np.bincount(regions.of, votes, count) / np.bincount(regions.of, minlength=count)
    kept = (support >= _MOST) & (regions.length >= length) & (regions.width <= width)
    centre, along, ends = regions.centre[kept], regions.along[kept], regions.ends[kept]
    return np.asarray(centre[:, None] + ends[:, :, None] * along[:, None])
