"""Moves: what can happen to the grid of an image. A move, once drawn, does the same to all it is given.

Law: a move of an (H, W) image acts on another tensor (…, h, w) of the same scene as it does on that image, so
what was aligned stays aligned. `source` gives, for a point (column, row) of the new grid, in pixels from the
upper left corner, the point of the old grid that it shows:  (x, y) ↦ (a x + b y + c, d x + e y + f).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from diffloom.errors import DataError
from diffloom_data.pixels import resize

Affine = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f as above: the order of georeferencing with rasterio."""


class Move(ABC):
    """Base of all moves."""

    @abstractmethod
    def __call__(self, x: Tensor, *, nearest: bool) -> Tensor:
        """Return `x` (…, h, w) moved; `nearest` takes existing values only, for masks and indices."""

    @abstractmethod
    def source(self) -> Affine:
        """Return where the new grid's points were in the old one."""


@dataclass(frozen=True)
class Window(Move):
    """Keep the pixels of a window.

    Attributes:
        corner: Row and column of its first pixel.
        size: Its height and width.
        image: Height and width of the image that these are counted in.
    """

    corner: tuple[int, int]
    size: tuple[int, int]
    image: tuple[int, int]

    def __call__(self, x: Tensor, *, nearest: bool) -> Tensor:
        """Return the window of `x`; DataError where it does not fall on whole pixels of `x`."""
        top, left = scaled(self.corner, self.image, x)
        height, width = scaled(self.size, self.image, x)
        return x[..., top : top + height, left : left + width].clone()

    def source(self) -> Affine:
        """Return the shift by the corner."""
        return (1.0, 0.0, float(self.corner[1]), 0.0, 1.0, float(self.corner[0]))


@dataclass(frozen=True)
class Scale(Move):
    """Bring to another size.

    Attributes:
        size: Height and width afterwards.
        image: Height and width before.
    """

    size: tuple[int, int]
    image: tuple[int, int]

    def __call__(self, x: Tensor, *, nearest: bool) -> Tensor:
        """Return `x` resized by the factors by which the image is."""
        return resize(x, scaled(self.size, self.image, x), nearest=nearest)

    def source(self) -> Affine:
        """Return the scaling by old over new."""
        return (self.image[1] / self.size[1], 0.0, 0.0, 0.0, self.image[0] / self.size[0], 0.0)


@dataclass(frozen=True)
class Mirror(Move):
    """Exchange left and right, or top and bottom.

    Attributes:
        axis: −1 exchanges left and right, −2 top and bottom.
        image: Height and width of the image.
    """

    axis: int
    image: tuple[int, int]

    def __call__(self, x: Tensor, *, nearest: bool) -> Tensor:
        """Return `x` mirrored, bit by bit."""
        return x.flip(self.axis)

    def source(self) -> Affine:
        """Return the reflection."""
        if self.axis == -1:
            return (-1.0, 0.0, float(self.image[1]), 0.0, 1.0, 0.0)
        return (1.0, 0.0, 0.0, 0.0, -1.0, float(self.image[0]))


@dataclass(frozen=True)
class QuarterTurns(Move):
    """Turn anticlockwise by right angles.

    Attributes:
        count: How many, 0 … 3.
        image: Height and width before.
    """

    count: int
    image: tuple[int, int]

    def __call__(self, x: Tensor, *, nearest: bool) -> Tensor:
        """Return `x` turned, bit by bit."""
        return torch.rot90(x, self.count, (-2, -1))

    def source(self) -> Affine:
        """Return the turn back."""
        height, width = map(float, self.image)
        return (
            (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            (0.0, -1.0, width, 1.0, 0.0, 0.0),
            (-1.0, 0.0, width, 0.0, -1.0, height),
            (0.0, 1.0, 0.0, -1.0, 0.0, height),
        )[self.count]


@dataclass(frozen=True)
class Turn(Move):
    """Turn anticlockwise about the centre by any angle; what comes in from outside mirrors the inside.

    Attributes:
        degrees: The angle.
        image: Height and width of the image.
    """

    degrees: float
    image: tuple[int, int]

    def __call__(self, x: Tensor, *, nearest: bool) -> Tensor:
        """Return `x` turned, between pixels bilinear, or `nearest`; of the same type."""
        flat = x.reshape(1, -1, *x.shape[-2:]).to(x.dtype if x.is_floating_point() else torch.float64)
        nearest = nearest or not x.is_floating_point()
        height, width = x.shape[-2:]
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        theta = flat.new_tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])
        grid = functional.affine_grid(theta.unsqueeze(0), list(flat.shape), align_corners=False)
        mode = "nearest" if nearest else "bilinear"
        out = functional.grid_sample(flat, grid, mode=mode, padding_mode="reflection", align_corners=False)
        return out.reshape(x.shape).to(x.dtype)

    def source(self) -> Affine:
        """Return the turn back about the centre."""
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        y, x = (side / 2 for side in self.image)
        return (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def scaled(lengths: tuple[int, int], image: tuple[int, int], x: Tensor) -> tuple[int, int]:
    """Return lengths given in pixels of an image in pixels of `x` (…, h, w), which shows the same.

    Raises:
        DataError: They are no whole numbers of pixels of `x`.
    """
    height, width = x.shape[-2:]
    rows, down = divmod(lengths[0] * height, image[0])
    columns, right = divmod(lengths[1] * width, image[1])
    if down or right:
        raise DataError(
            f"a part of {height}×{width} does not follow an image of {image[0]}×{image[1]} by whole pixels",
            got=f"lengths of {lengths[0]} and {lengths[1]} pixels of the image",
            remedy="choose sizes, and for a `crop` the `multiple`, that the ratio of the two divides",
        )
    return rows, columns


def compose(outer: Affine, inner: Affine) -> Affine:
    """Return the map that takes a point through `inner`, then through `outer`."""
    a, b, c, d, e, f = outer
    g, h, i, j, k, m = inner
    return (a * g + b * j, a * h + b * k, a * i + b * m + c, d * g + e * j, d * h + e * k, d * i + e * m + f)
