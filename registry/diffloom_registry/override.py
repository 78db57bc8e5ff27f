"""A change that comes off again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self


class Override:
    """A change that undoes itself: by ``close()``, or at the end of a ``with`` block."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    def close(self) -> None:
        """Undo the change; a second call does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> Self:
        """Enter a ``with`` block; the change is already in force."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Undo the change."""
        self.close()
