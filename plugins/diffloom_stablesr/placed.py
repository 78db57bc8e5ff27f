"""Placed: noise that belongs to the places of a map; two windows of it draw the same where they overlap."""

from collections.abc import Hashable, Iterable, Sequence
from itertools import product

import torch
from torch import Tensor

from diffloom.noise import Noise

_CELL = 32
_MAP = 4  # dimensions of a batch of maps


class Placed(Noise):
    """A window's share of the noise of an endless map.

    Normal draws shaped as maps are cut from squares of 32 × 32 that are drawn on their own; other draws are as ever.

    Args:
        seeds: One integer per item.
        scope: Names the purpose.
        corner: Where the window begins on the map, row and column.
    """

    def __init__(
        self, seeds: Iterable[int], *, scope: Sequence[Hashable] = (), corner: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__(seeds, scope=scope)
        self.corner = corner

    def __getitem__(self, index: slice) -> "Placed":
        return Placed(self.seeds[index], scope=self.scope, corner=self.corner)

    def within(self, *names: Hashable) -> "Placed":
        """Return a noise whose draws are independent of this one's, at the same place."""
        return Placed(self.seeds, scope=(*self.scope, *names), corner=self.corner)

    def normal(self, like: Tensor, *key: Hashable) -> Tensor:
        """Return standard normal draws with the shape, type and device of `like`, (B, …), B = len(self)."""
        if like.dim() != _MAP:
            return super().normal(like, *key)
        (top, left), (height, width) = self.corner, like.shape[2:]
        first, last = (top // _CELL, left // _CELL), ((top + height - 1) // _CELL, (left + width - 1) // _CELL)
        shape = [(_CELL * (end - begin + 1)) for begin, end in zip(first, last, strict=True)]
        whole = torch.empty(*like.shape[:2], *shape, dtype=torch.promote_types(like.dtype, torch.float32))
        for row, column in product(range(first[0], last[0] + 1), range(first[1], last[1] + 1)):
            place = slice((row - first[0]) * _CELL, None), slice((column - first[1]) * _CELL, None)
            cell = super().normal(whole[..., :_CELL, :_CELL], *key, "cell", row, column)
            whole[..., place[0], place[1]][..., :_CELL, :_CELL] = cell
        down, across = top - first[0] * _CELL, left - first[1] * _CELL
        return whole[..., down : down + height, across : across + width].to(like.device, like.dtype)
