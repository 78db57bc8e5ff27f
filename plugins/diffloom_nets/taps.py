"""Taps: where a denoiser publishes its feature maps to be edited and read.

Law: with nothing to edit and nothing to read, a map passes through as the same tensor.
"""

from collections.abc import Collection, Sequence

from torch import Tensor

from diffloom.condition import Condition
from diffloom.errors import IncompatibleParts
from diffloom_registry.errors import listed, nearest


class Taps:
    """One forward pass's edits and readers.

    Args:
        names: Every tap the denoiser has.
        condition: Whose `affine` edits apply, or `None`.
        read: Names of the taps to keep.

    Raises:
        IncompatibleParts: An edit or a reader names a tap that is not there.
    """

    def __init__(self, names: Collection[str], condition: Condition | None, read: Sequence[str]) -> None:
        edited = condition.affine if condition is not None else {}
        if edited or read:
            for name in (*edited, *read):
                if name not in names:
                    raise _unknown(name, names)
        self.condition = condition if edited else None
        self.wanted = frozenset(read)
        self.maps: dict[str, Tensor] = {}

    def __call__(self, name: str, h: Tensor) -> Tensor:
        """Return the map `h` (B, C, H, W) of tap `name` after its edits, and keep it for the reader."""
        return self.keep(name, self.edit(name, h))

    def edit(self, name: str, h: Tensor) -> Tensor:
        """Return the map `h` of tap `name` after its edits."""
        return h if self.condition is None else self.condition.edit(name, h)

    def keep(self, name: str, h: Tensor) -> Tensor:
        """Return the map `h` of tap `name` as it is, and keep it for the reader."""
        if name in self.wanted:
            self.maps[name] = h
        return h

    def edited(self, name: str) -> bool:
        """Whether anything edits tap `name`."""
        return self.condition is not None and name in self.condition.affine

    def touches(self, name: str) -> bool:
        """Whether anything edits or reads tap `name`; when not, its map need not exist on its own."""
        return name in self.wanted or self.edited(name)


def _unknown(name: str, names: Collection[str]) -> IncompatibleParts:
    close = nearest(name, names)
    return IncompatibleParts(
        "the denoiser has no such tap",
        expected=f"one of {listed(list(names))}" if names else "no tap at all",
        got=repr(name),
        remedy=f"did you mean {close[0]!r}?" if close else "its taps are listed in `denoiser.taps`",
    )
