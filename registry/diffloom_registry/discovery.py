"""Finding what installed distributions publish, without importing any of it.

``importlib.metadata.entry_points()`` raises for everybody when one installed file has one malformed line, so
each distribution's ``entry_points.txt`` is read here on its own, line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata

from diffloom_registry.errors import BrokenPlugin, DiffloomError, did_you_mean, nearest
from diffloom_registry.kinds import Entry

_VALUE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")
NAME = re.compile(r"[\w.+-]+")
NAME_RULE = "a name of letters, digits, '.', '_', '+' and '-'"


@dataclass(frozen=True)
class Broken:
    """An entry that cannot be used, and why."""

    entry: Entry
    error: DiffloomError


@dataclass
class Discovered:
    """What one look at the installed distributions found."""

    entries: list[Entry] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)


def discover(groups: Mapping[str, str], *, near: str = "", disabled: str = "") -> Discovered:
    """Read the entry points of some groups.

    Args:
        groups: Entry-point group -> name of the kind that its entries have.
        near: Prefix of this program's groups: an unknown one that resembles a known one is reported.
        disabled: Comma-separated names of distributions to leave alone.
    """
    skip = {normalised(name) for name in disabled.split(",") if name.strip()}
    found = Discovered()
    seen: set[Entry] = set()
    for distribution, version, text in _publishers((*groups, near) if near else groups):
        if normalised(distribution) in skip:
            continue
        for group, name, value in _lines(text):
            if group in groups:
                entry = Entry(groups[group], name, value, distribution, version)
                problem = malformed(entry)
            elif near and group.startswith(near) and nearest(group.removeprefix(near), groups.values()):
                entry = Entry(group.removeprefix(near), name, value, distribution, version)
                meant = [near + kind for kind in nearest(entry.kind, groups.values())]
                problem = entry.broken(f"unknown group {group!r}", remedy=did_you_mean(meant))
            else:
                continue
            if entry in seen:
                continue
            seen.add(entry)
            if problem is None:
                found.entries.append(entry)
            else:
                found.broken.append(Broken(entry, problem))
    return found


def normalised(distribution: str) -> str:
    """Return a distribution's name in the form that compares equal for all its spellings."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def _publishers(marks: Iterable[str]) -> Iterator[tuple[str, str | None, str]]:
    """Yield (name, version, entry points) of distributions whose entry points mention one of ``marks``.

    Of several copies of one distribution on the path only the first counts, as for ``import``.
    """
    marks = tuple(marks)
    names: dict[str, str] = {}
    for candidate in metadata.distributions():
        text = _text(candidate)
        name = _name(candidate) if any(mark in text for mark in marks) else None
        if name:
            names.setdefault(normalised(name), name)
    for name in names.values():
        first = metadata.distribution(name)
        yield name, first.metadata["Version"], _text(first)


def _text(distribution: metadata.Distribution) -> str:
    """Return the text of the entry points; a file that is not even text publishes nothing."""
    try:
        return distribution.read_text("entry_points.txt") or ""
    except (OSError, UnicodeDecodeError):
        return ""


def _name(distribution: metadata.Distribution) -> str | None:
    """Return the name; a folder without metadata is no installed distribution."""
    try:
        return distribution.metadata["Name"]
    except (OSError, UnicodeDecodeError, KeyError, metadata.PackageNotFoundError):
        return None


def _lines(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield (group, name, value) for each line; a line without ``=`` has an empty value."""
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield group, name.strip(), value.partition("[")[0].strip()


def malformed(entry: Entry) -> BrokenPlugin | None:
    """Return what is wrong with the name or value of an entry, if anything is."""
    if not NAME.fullmatch(entry.name):
        return entry.broken(
            "malformed entry point",
            expected=NAME_RULE,
            got=repr(entry.name),
            remedy=f"correct what {entry.source} publishes",
        )
    if not _VALUE.fullmatch(entry.value):
        return entry.broken(
            "malformed entry point",
            expected="name = package.module:Class",
            got=repr(f"{entry.name} = {entry.value}" if entry.value else entry.name),
            remedy=f"correct what {entry.source} publishes",
        )
    return None
