"""Window: a part of a map that is larger than a denoiser was made for; what it says of all windows is blended.

    out = Σ_n w_n ⊙ out_n / Σ_n w_n,    w(i, j) = g(i) g(j),  g a Gaussian about the window's centre, of variance T²/100

for windows of side T, at every step of a walk (StableSR, Wang et al. 2023, section 3.4). Blending the network's output,
and not x, keeps one state and one noise for the whole map: there is no seam, and the noise keeps its variance.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_VARIANCE = 0.01
_SPATIAL = 4  # dimensions of a batch of maps, at least


@dataclass(frozen=True)
class Window:
    """A rectangle of a map.

    Attributes:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
        size: Rows and columns of the whole map.
    """

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]

    def cut(self, h: Tensor) -> Tensor:
        """Return the part of a map that lies in the window, a view.

        Args:
            h: (…, H, W) or any map of the same scene, smaller or larger in proportion; a side of 1 stands for all.

        Raises:
            ValueError: The window's edges do not fall between the map's pixels.
        """
        rows = _range(self.top, self.height, self.size[0], h.shape[-2])
        columns = _range(self.left, self.width, self.size[1], h.shape[-1])
        return h[..., rows, columns]

    def part(self, code: object) -> object:
        """Return a code (a tree of batch-first tensors) of this window alone: every map in it is cut."""
        return pytree.tree_map(lambda leaf: self.cut(leaf) if _is_map(leaf) else leaf, code)


def windows(size: tuple[int, int], side: int, overlap: int) -> Iterator[Window]:
    """Yield windows that cover a map, row by row; the last of a row or column ends at the map's edge.

    Args:
        size: Rows and columns of the map.
        side: Of a window; a shorter map is its own window along that side.
        overlap: Of neighbours, less than `side`.
    """
    vertical, level = (list(starts(length, side, overlap)) for length in size)
    for top, left in product(vertical, level):
        yield Window(top, left, min(side, size[0]), min(side, size[1]), size)


def starts(length: int, side: int, overlap: int) -> Iterator[int]:
    """Yield where windows begin along one side."""
    last = max(length - side, 0)
    yield from range(0, last, side - overlap)
    yield last


def weights(height: int, width: int) -> Tensor:
    """Return how much each pixel of a window counts, float32 (height, width), largest in the middle."""
    return (_gaussian(height)[:, None] * _gaussian(width)).float()


def _gaussian(side: int) -> Tensor:
    place = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / side
    return torch.exp(-place.square() / (2 * _VARIANCE))


def _range(start: int, length: int, whole: int, side: int) -> slice:
    if side == 1:
        return slice(None)
    share = Fraction(side, whole)
    ends = start * share, (start + length) * share
    if any(end.denominator != 1 for end in ends):
        raise ValueError(f"a window from {start} to {start + length} of {whole} does not fit a map of {side}")
    return slice(int(ends[0]), int(ends[1]))


def _is_map(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() >= _SPATIAL
