"""Hints that are given: classes as colours, heights, roads, and any bands of any raster, brought to [0, 1]."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.errors import DataError
from diffloom_hints.hint import Bands, Copies, Hint, chosen
from diffloom_hints.palettes import Colour, colours

Number = Annotated[int, Field(ge=0)]


class SegmentationMap(Hint):
    """The classes of a mask, as colours, as one band per class, or as one band of grey.

    What is no class (below 0, from `classes` on, or named in `without`) is 0 in every band. A mask of another size
    than the image takes the nearest values.

    Args:
        classes: How many classes there are.
        style: `palette` gives three bands of colour, as weights trained on coloured maps expect; `one-hot` a band
            per class, 1 where the class is; `index` one band, (class + 1)/classes.
        palette: `voc` (Everingham et al. 2010, its black left to what is no class), `loveda` (Wang et al. 2021), or
            the colours themselves, a triple of 0 … 255 per class.
        without: Class numbers that are hidden, such as that of "unlabelled".
        key: Under which the hint is put.
        of: Where the sample has class numbers, (1, H, W) or (H, W).

    Raises:
        ValueError: The palette has fewer colours than there are classes.
    """

    examples: ClassVar = ({"classes": 2}, {"classes": 2, "style": "one-hot"}, {"classes": 2, "style": "index"})

    def __init__(
        self,
        *,
        classes: Annotated[int, Field(gt=0)],
        style: Literal["palette", "one-hot", "index"] = "palette",
        palette: Literal["voc", "loveda"] | Sequence[Colour] = "voc",
        without: tuple[Number, ...] = (),
        key: str = "hint",
        of: str = "mask",
    ) -> None:
        super().__init__(key=key, of=of)
        self.classes, self.style, self.without = classes, style, without
        self.palette = colours(palette, classes)

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return the map; see `style`."""
        if len(given) != 1:
            raise DataError("a mask has one channel", where=self.where, got=f"{len(given)} in '{self.of}'")
        hot = (given.long() == torch.arange(self.classes).view(-1, 1, 1)).float()
        hot[[number for number in self.without if number < self.classes]] = 0
        if self.style == "one-hot":
            return hot
        rows = self.palette if self.style == "palette" else torch.arange(1, self.classes + 1)[:, None] / self.classes
        return torch.einsum("khw,kc->chw", hot, rows)

    def numbers(self, hint: Tensor) -> Tensor:
        """Return the class numbers (…, H, W) of maps (…, c, H, W) as `draw` makes them; −1 is none.

        Values between two classes count as the nearest one, so a map that was blurred or compressed can be read.
        """
        if self.style == "one-hot":
            strength, number = hint.max(-3)
            return torch.where(strength > 0.5, number, -1)
        rows = self.palette if self.style == "palette" else torch.arange(1, self.classes + 1)[:, None] / self.classes
        known = torch.cat([torch.zeros_like(rows[:1]), rows]).to(hint)
        far = (hint.movedim(-3, -1)[..., None, :] - known).square().sum(-1)
        return far.argmin(-1) - 1


class RoadMap(Hint):
    """Roads as 1, all else as 0: classes of a mask, or a map that is given.

    A map of whole numbers is 1 where its number is among `classes`; one of real numbers is an image in [−1, 1], and
    is brought to [0, 1].

    Args:
        classes: The class numbers that are roads.
        key: Under which the hint is put.
        of: Where the sample has the mask, or the map.
        copies: Of the map: 3 for weights that expect hints in colour.

    Raises:
        DataError: The map has whole numbers, and no class is named; or it has several bands.
    """

    examples: ClassVar = ({"classes": (1,)},)

    def __init__(
        self, *, classes: tuple[Number, ...] = (), key: str = "hint", of: str = "mask", copies: Copies = 1
    ) -> None:
        super().__init__(key=key, of=of)
        self.classes, self.copies = classes, copies

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return the roads, (copies, H, W)."""
        if len(given) != 1:
            raise DataError("a map of roads has one band", where=self.where, got=f"{len(given)} in '{self.of}'")
        if given.is_floating_point() and not self.classes:
            return ((given + 1) / 2).repeat(self.copies, 1, 1)
        if not self.classes:
            raise DataError(
                "nothing says which classes are roads",
                where=self.where,
                expected="class numbers under `classes`",
                remedy=f"set them, or name a map of roads in [−1, 1] in the place of '{self.of}'",
            )
        return torch.isin(given.long(), torch.tensor(self.classes)).float().repeat(self.copies, 1, 1)


class DepthMap(Hint):
    """A depth, a height or a distance that is given, brought to [0, 1].

    Values from `low` … `high` become 0 … 1 and those beyond are held. A limit that is not named is the least or the
    greatest value of the map itself, so that each uses the whole range, as estimates without a unit do; a map without
    any range is 0. What is no number is 0 too, before and after `invert`.

    Args:
        low: What becomes 0.
        high: What becomes 1.
        invert: Exchange 0 and 1: distances become nearness, as networks that estimate depth give it.
        key: Under which the hint is put.
        of: Where the sample has the map, of one band.
        copies: Of the map: 3 for weights that expect hints in colour.

    Raises:
        ValueError: The limits are in the wrong order.
    """

    examples: ClassVar = ({"of": "infrared"}, {"of": "infrared", "low": -1.0, "high": 1.0, "invert": True})

    def __init__(
        self,
        *,
        low: float | None = None,
        high: float | None = None,
        invert: bool = False,
        key: str = "hint",
        of: str = "depth",
        copies: Copies = 1,
    ) -> None:
        if low is not None and high is not None and low >= high:
            raise ValueError(f"low must be below high, and {low:g} is not below {high:g}")
        super().__init__(key=key, of=of)
        self.low, self.high, self.invert, self.copies = low, high, invert, copies

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return the map, (copies, H, W)."""
        if len(given) != 1:
            raise DataError("a map of depth has one band", where=self.where, got=f"{len(given)} in '{self.of}'")
        values = given.double()
        known = values.isfinite()
        inside = values[known] if bool(known.any()) else values.new_zeros(1)
        low = float(inside.min()) if self.low is None else self.low
        high = float(inside.max()) if self.high is None else self.high
        scaled = ((values - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(values)
        turned = 1 - scaled if self.invert and high > low else scaled
        return torch.where(known, turned, 0.0).float().repeat(self.copies, 1, 1)


class SelectedBands(Hint):
    """Bands of any raster that goes with the image, each brought from low … high to 0 … 1.

    Args:
        bands: Their indices, from 0, in the order wanted; all of them by default.
        low: What becomes 0; smaller values do too.
        high: What becomes 1; larger values do too. What is no number is 0.
        key: Under which the hint is put.
        of: Where the sample has the raster, (C, H, W).

    Raises:
        ValueError: The limits are in the wrong order.
    """

    examples: ClassVar[Sequence[dict[str, Any]]] = ({}, {"bands": (0,), "of": "low_res"})

    def __init__(
        self, *, bands: Bands = (), low: float = -1.0, high: float = 1.0, key: str = "hint", of: str = "image"
    ) -> None:
        if low >= high:
            raise ValueError(f"low must be below high, and {low:g} is not below {high:g}")
        super().__init__(key=key, of=of)
        self.bands, self.low, self.high = bands, low, high

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return the bands, (bands, H, W)."""
        scaled = (chosen(given, self.bands, self.where).double() - self.low) / (self.high - self.low)
        return scaled.nan_to_num(0.0, 1.0, 0.0).clamp(0, 1).float()
