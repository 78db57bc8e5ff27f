"""Transforms of geometry: each draws moves once and makes them on every spatial part of the sample.

Law: image, mask and whatever else shows the scene stay aligned, and so does the georeference `transform`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.data import Sample, Transform
from diffloom.errors import DataError
from diffloom.space import Space
from diffloom_data.moves import Affine, Mirror, Move, QuarterTurns, Scale, Turn, Window, compose

SPATIAL = ("image", "mask", "frames", "low_res", "infrared", "visible", "pre", "post")
"""Keys whose last two dimensions are height and width; the first one present is what sizes are counted in."""

Size = tuple[int, int]


class Geometry(Transform):
    """Base of the transforms of geometry.

    `mask` and all whole-number tensors are moved by taking the nearest value, the others smoothly. Any other
    tensor of three dimensions or more that neither `SPATIAL` nor `also` names is refused: it might show the
    scene too. A georeference under `transform` follows: six numbers a … f with x = a column + b row + c and
    y = d column + e row + f, or a 3×3 tensor.

    Args:
        also: Further keys that show the scene.
    """

    def __init__(self, *, also: tuple[str, ...] = ()) -> None:
        self.also = also

    @abstractmethod
    def draw(self, size: Size, generator: torch.Generator) -> Sequence[Move]:
        """Return the moves, made one after the other, for an image of a size (height, width)."""

    def after(self, size: Size) -> Size:
        """Return the size that an image of `size` has afterwards."""
        return size

    def space(self, space: Space) -> Space:
        """Return the space with the size of the images afterwards."""
        height, width = space.size
        return replace(space, size=self.after((height, width)))

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Return the sample with every spatial part moved alike."""
        keys = self._spatial(sample)
        height, width = sample[keys[0]].shape[-2:]
        changed = dict(sample)
        for move in self.draw((height, width), generator):
            for key in keys:
                changed[key] = move(changed[key], nearest=key == "mask")
            if "transform" in changed:
                changed["transform"] = georeferenced(changed["transform"], move.source())
        return changed

    def _spatial(self, sample: Sample) -> list[str]:
        if "boxes" in sample:
            raise DataError(
                "boxes do not follow a change of geometry",
                where=f"the transform {type(self).__name__}",
                remedy="put it before the transform that makes the boxes",
            )
        keys = [key for key in dict.fromkeys((*SPATIAL, *self.also)) if isinstance(sample.get(key), Tensor)]
        unknown = [k for k, v in sample.items() if isinstance(v, Tensor) and v.dim() >= 3 and k not in keys]
        if unknown or not keys:
            raise DataError(
                f"'{unknown[0]}' may or may not show the scene" if unknown else "the sample shows nothing",
                where=f"the transform {type(self).__name__}",
                expected=f"spatial keys among {', '.join((*SPATIAL, *self.also))}",
                got=f"the keys {', '.join(sample)}",
                remedy="name the key in `also` so that it is moved with the image",
            )
        return keys


class Resize(Geometry):
    """Bring images to a size.

    Args:
        size: The side, in pixels.
        fit: `cover` scales until the square is just covered and crops it at the centre; `stretch` fills the
            square and changes proportions; `shorter` makes the shorter side so long and keeps all of it.
        also: Further keys that show the scene.
    """

    examples: ClassVar = tuple({"size": 8, "fit": fit} for fit in ("cover", "stretch", "shorter"))

    def __init__(
        self,
        *,
        size: Annotated[int, Field(gt=0)],
        fit: Literal["cover", "stretch", "shorter"] = "cover",
        also: tuple[str, ...] = (),
    ) -> None:
        super().__init__(also=also)
        self.size = size
        self.fit = fit

    def draw(self, size: Size, generator: torch.Generator) -> Sequence[Move]:
        """Return the scaling, and for `cover` the window."""
        big = self._scaled(size)
        moves: list[Move] = [Scale(big, size)] if big != size else []
        if self.after(size) != big:
            corner = ((big[0] - self.size) // 2, (big[1] - self.size) // 2)
            moves.append(Window(corner, (self.size, self.size), big))
        return moves

    def after(self, size: Size) -> Size:
        """Return the square, or for `shorter` the size in proportion."""
        return self._scaled(size) if self.fit == "shorter" else (self.size, self.size)

    def _scaled(self, size: Size) -> Size:
        if self.fit == "stretch":
            return self.size, self.size
        scale = self.size / min(size)
        return max(self.size, round(size[0] * scale)), max(self.size, round(size[1] * scale))


class Crop(Geometry):
    """Keep a square window.

    Args:
        size: Its side, in pixels.
        position: Where it lies.
        multiple: The window begins at multiples of this, so that it falls on whole pixels of a `low_res` that
            is this many times smaller.
        also: Further keys that show the scene.
    """

    examples: ClassVar = ({"size": 8}, {"size": 8, "position": "centre"})

    def __init__(
        self,
        *,
        size: Annotated[int, Field(gt=0)],
        position: Literal["random", "centre"] = "random",
        multiple: Annotated[int, Field(gt=0)] = 1,
        also: tuple[str, ...] = (),
    ) -> None:
        super().__init__(also=also)
        self.size = size
        self.position = position
        self.multiple = multiple

    def draw(self, size: Size, generator: torch.Generator) -> Sequence[Move]:
        """Return the window."""
        self.after(size)
        places = [(side - self.size) // self.multiple for side in size]
        if self.position == "random":
            rows, columns = (int(torch.randint(n + 1, (), generator=generator)) for n in places)
        else:
            rows, columns = (n // 2 for n in places)
        corner = (rows * self.multiple, columns * self.multiple)
        return [Window(corner, (self.size, self.size), size)]

    def after(self, size: Size) -> Size:
        """Return the window's size; DataError where the image is smaller."""
        if min(size) < self.size:
            raise DataError(
                "the image is smaller than the window",
                where="the transform `crop`",
                expected=f"sides of at least {self.size}",
                got=f"{size[0]}×{size[1]}",
                remedy="put a `resize` before it, or make the window smaller",
            )
        return self.size, self.size


class Flip(Geometry):
    """Exchange left and right, top and bottom, by chance.

    Args:
        horizontal: Probability that left and right are exchanged.
        vertical: Probability that top and bottom are exchanged.
        also: Further keys that show the scene.
    """

    def __init__(
        self,
        *,
        horizontal: Annotated[float, Field(ge=0, le=1)] = 0.5,
        vertical: Annotated[float, Field(ge=0, le=1)] = 0.0,
        also: tuple[str, ...] = (),
    ) -> None:
        super().__init__(also=also)
        self.horizontal = horizontal
        self.vertical = vertical

    def draw(self, size: Size, generator: torch.Generator) -> Sequence[Move]:
        """Return none, one or both mirrorings."""
        across, down = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        wanted = ((-1, across < self.horizontal), (-2, down < self.vertical))
        return [Mirror(axis, size) for axis, flipped in wanted if flipped]


class Rotate(Geometry):
    """Turn anticlockwise by an angle drawn at random; right angles are exact.

    Args:
        angles: The right angles to choose from.
        degrees: Turn further, by an angle drawn evenly from −degrees … degrees.
        also: Further keys that show the scene.
    """

    def __init__(
        self,
        *,
        angles: Annotated[tuple[Literal[0, 90, 180, 270], ...], Field(min_length=1)] = (0, 90, 180, 270),
        degrees: Annotated[float, Field(ge=0, le=180)] = 0.0,
        also: tuple[str, ...] = (),
    ) -> None:
        super().__init__(also=also)
        self.angles = angles
        self.degrees = degrees

    def draw(self, size: Size, generator: torch.Generator) -> Sequence[Move]:
        """Return the turns."""
        size_after = self.after(size)
        turns = self.angles[int(torch.randint(len(self.angles), (), generator=generator))] // 90
        angle = self.degrees * (2 * float(torch.rand((), generator=generator, dtype=torch.float64)) - 1)
        moves: list[Move] = [QuarterTurns(turns, size)] if turns else []
        return [*moves, Turn(angle, size_after)] if angle else moves

    def after(self, size: Size) -> Size:
        """Return the size, sides exchanged where needed; DataError where that would be by chance."""
        odd = {angle % 180 == 90 for angle in self.angles}
        if size[0] != size[1] and len(odd) > 1:
            raise DataError(
                "some angles exchange height and width, and others do not",
                where="the transform `rotate`",
                expected="square images",
                got=f"{size[0]}×{size[1]}",
                remedy="set `angles: [0, 180]`, or put a `resize` or `crop` before it",
            )
        return (size[1], size[0]) if odd == {True} else size


def georeferenced(transform: Any, source: Affine) -> Any:
    """Return the georeference `transform` after a move, of the same type.

    Args:
        transform: Six numbers as a tuple, a list or a tensor (6,), or a tensor (3, 3).
        source: Where the new grid's points were in the old one.
    """
    numbers = transform.flatten().tolist() if isinstance(transform, Tensor) else transform
    if not isinstance(numbers, Sequence) or len(numbers) not in (6, 9):
        raise DataError(
            "the georeference cannot follow a change of geometry",
            where="`transform`",
            expected="six numbers, or a 3×3 tensor",
            got=type(transform).__name__,
        )
    a, b, c, d, e, f = map(float, numbers[:6])
    moved = [*compose((a, b, c, d, e, f), source), *map(float, numbers[6:])]
    if isinstance(transform, Tensor):
        return transform.new_tensor(moved).reshape(transform.shape)
    return moved if isinstance(transform, list) else tuple(moved)
