"""Errors: each is one sentence that says where, what was expected, what came and what to do.

All derive from `DiffloomError`; the command line prints them without a traceback and exits with 2.
"""

from collections.abc import Iterable

from diffloom_registry.errors import BrokenPlugin, ConfigError, DiffloomError, Problem, UnknownComponent


class RecipeError(DiffloomError):
    """A recipe does not say what it must.

    Attributes:
        lines: Every problem, one line each, headed by file, line and column.
        problems: The same as data, where they are problems of the text.
    """

    lines: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, lines: Iterable[str]) -> "RecipeError":
        """Return one error that says all `lines`."""
        error = cls("the recipe has problems")
        error.lines = tuple(lines)
        return error

    def __str__(self) -> str:
        return "\n".join(self.lines) or super().__str__()


class IncompatibleParts(DiffloomError):  # noqa: N818  the name says what is wrong
    """Two parts of a system do not fit together."""


class CheckpointError(DiffloomError):
    """A file of weights or of a run's state cannot be used."""


class DataError(DiffloomError):
    """A data set, or one of its files, cannot be read."""


__all__ = [
    "BrokenPlugin",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DiffloomError",
    "IncompatibleParts",
    "Problem",
    "RecipeError",
    "UnknownComponent",
]
