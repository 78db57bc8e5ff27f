"""What can go wrong, each as one sentence with fields for its parts.

A message says *where*, what the *problem* is, what was *expected*, what was *got* and the *remedy*; the cause
is chained with ``raise ... from``. ``str(error)`` joins the parts on one line, fit to be printed as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""The keys and list positions that lead to a value in nested data."""

_LISTED = 16


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in configuration data.

    Attributes:
        path: Keys and list positions that lead to the value.
        message: What is wrong, in a few words.
        expected: What would have been right.
        got: What came instead.
        remedy: What to do about it.
    """

    path: KeyPath
    message: str
    expected: str | None = None
    got: str | None = None
    remedy: str | None = None

    def text(self) -> str:
        """Return the problem as one line."""
        return sentence(self.message, dotted(self.path), self.expected, self.got, self.remedy)


class DiffloomError(Exception):
    """An error that tells its reader what to do.

    Args:
        message: What is wrong, in a few words.
        where: The component, recipe path or file that it is about.
        expected: What would have been right.
        got: What came instead.
        remedy: What to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.expected = expected
        self.got = got
        self.remedy = remedy

    def __str__(self) -> str:
        """Return all parts on one line."""
        return sentence(self.message, self.where, self.expected, self.got, self.remedy)


class UnknownComponent(DiffloomError):  # noqa: N818  says what it is without "Error"
    """No component of a kind has the name that was asked for.

    Args:
        kind: The kind that was looked up.
        name: The name that was asked for.
        installed: Names of that kind that exist.
        elsewhere: Other kinds that do have the name.
    """

    def __init__(self, kind: str, name: str, *, installed: Iterable[str] = (), elsewhere: Iterable[str] = ()) -> None:
        self.kind = kind
        self.name = name
        self.installed = sorted(installed)
        self.elsewhere = sorted(elsewhere)
        self.nearest = nearest(name, self.installed)
        hints = [f"{name!r} is {article(other)}" for other in self.elsewhere]
        if self.nearest:
            hints.append(did_you_mean(self.nearest))
        elif not hints:
            hints.append(f"install a package that provides the {kind} {name!r}")
        super().__init__(
            f"there is no {kind} named {name!r}",
            expected=f"one of {listed(self.installed)}" if self.installed else None,
            got=None if self.installed else f"no {kind} at all is installed",
            remedy="; ".join(hints),
        )
        self.args = (kind, name)  # so that pickle can call the constructor again


class BrokenPlugin(DiffloomError):  # noqa: N818  says what it is without "Error"
    """A plugin is installed and cannot be used; the others are not affected.

    Args:
        message: What is wrong with it, in a few words.
        distribution: Name of the distribution that brought it, if one did.
        version: Version of that distribution.
        value: The entry point's value, ``package.module:Class``.
        where: The kind and name under which it is published.
        expected: What would have been right.
        got: What came instead.
        remedy: What to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        distribution: str | None = None,
        version: str | None = None,
        value: str | None = None,
        where: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, where=where, expected=expected, got=got, remedy=remedy)
        self.distribution = distribution
        self.version = version
        self.value = value


class ConfigError(DiffloomError):
    """Configuration data has problems; all of them, one line each.

    Args:
        problems: What is wrong, at least one.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(problem.text() for problem in self.problems))
        self.args = (self.problems,)

    def __str__(self) -> str:
        """Return one line for each problem."""
        return self.message


def sentence(
    message: str,
    where: str | None = None,
    expected: str | None = None,
    got: str | None = None,
    remedy: str | None = None,
) -> str:
    """Join the parts of an error on one line: ``where: message: expected a, got b; remedy``."""
    found = [f"{word} {part}" for word, part in (("expected", expected), ("got", got)) if part]
    head = ": ".join(part for part in (where, message, ", ".join(found)) if part)
    return " ".join("; ".join(part for part in (head, remedy) if part).split())


def dotted(path: Sequence[str | int]) -> str:
    """Write a path as a reader of the recipe would: ``data.transforms[0].size``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not step or any(character in step for character in ".[] "):
            text += f"[{step!r}]"
        else:
            text += f".{step}" if text else step
    return text


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that ``name`` may have meant, best first."""
    spellings = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(name.casefold(), spellings, n=3, cutoff=0.6)
    return [spellings[spelling] for spelling in found]


def did_you_mean(names: Sequence[str]) -> str:
    """Ask whether one of ``names`` was meant."""
    return f"did you mean {' or '.join(repr(name) for name in names)}?"


def listed(names: Sequence[str]) -> str:
    """Write names as a list that stays on one line."""
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def article(noun: str) -> str:
    """Put ``a`` or ``an`` before a noun."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
