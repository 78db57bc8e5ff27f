"""Migration: a recipe written for an older version of a plugin is read as the plugin's present version means it.

A plugin renames a key of its component, and says so in its hook `diffloom_migrate`. Whoever reads an old recipe gets
the new key and a warning at the file and line of the old one; the file itself is left as it is. A migration that fails
is left out as a whole, and named.
"""

import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from diffloom.recipe.source import KeyPath, Mark, Source, walk
from diffloom_registry import BrokenPlugin
from diffloom_registry.hooks import Hooks
from diffloom_registry.kinds import Entry
from diffloom_registry.loading import mentions

_HOOK = "diffloom_migrate"
_LOCK = "lock"
_ROLES = {"data": "dataset", "conditioners": "conditioner"}
_JUDGING = {"metrics": "metric", "samplers": "sampler"}


class RecipeWarning(FutureWarning):
    """A recipe says something in an old way, which was understood."""


class OldPart:
    """One component of a recipe, to be brought up to date.

    Args:
        source: The recipe.
        path: Where the component stands.
        notes: What was changed, with its place; grows.
    """

    def __init__(self, source: Source, path: KeyPath, notes: list[tuple[Mark | None, str]]) -> None:
        self.path = path
        self._source = source
        self._notes = notes
        self._data: dict[str, Any] = _at(source.data, path)

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def rename(self, old: str, new: str) -> None:
        """Give a key its new name; nothing happens where the old one is absent, or the new one is there too."""
        if old not in self._data or new in self._data:
            return
        self._note(old, f"{old!r} is now {new!r}")
        value = self._data.pop(old)
        self._data[new] = value
        start = (*self.path, old)
        for place in [p for p in self._source.marks if p[: len(start)] == start]:
            self._source.marks[(*self.path, new, *place[len(start) :])] = self._source.marks.pop(place)

    def replace(self, key: str, value: Any) -> None:
        """Give a key that is there another value, such as `type` the name of the component's successor."""
        if key in self._data and self._data[key] != value:
            self._note(key, f"{key}: {self._data[key]} is now {value}")
            self._data[key] = value

    def drop(self, key: str, reason: str) -> None:
        """Take a key away that means nothing any more."""
        if key in self._data:
            self._note(key, f"{key!r} is left out: {reason}")
            del self._data[key]

    def _note(self, key: str, text: str) -> None:
        role = ".".join(map(str, self.path))
        self._notes.append((self._source.mark((*self.path, key)), f"{role}: {text}"))


class OldRecipe:
    """A recipe before it is checked, as the hook `diffloom_migrate` gets it.

    Args:
        source: What was read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.notes: list[tuple[Mark | None, str]] = []

    @property
    def data(self) -> Mapping[str, Any]:
        """The recipe as plain data, to be looked at."""
        return deepcopy(self._source.data)

    def version(self, distribution: str) -> str | None:
        """Return the version of a distribution that a lock file records, or `None` where none does."""
        recorded = self._source.data.get(_LOCK)
        components = recorded.get("components") if isinstance(recorded, Mapping) else None
        for text in (components or {}).values() if isinstance(components, Mapping) else ():
            name, _, number = str(text).rpartition(" from ")[2].partition(" ")
            if name == distribution and number:
                return str(number)
        return None

    def parts(self, kind: str, name: str) -> Iterator[OldPart]:
        """Yield the components of a kind that have a name, those nested in other components too.

        Args:
            kind: Such as sampler.
            name: As recipes write it under `type`, without its distribution.
        """
        for path, value in list(walk(self._source.data)):
            if isinstance(value, dict) and str(value.get("type", "")).rpartition("/")[2] == name:
                known = _kind(path)
                if known is None or known == kind:
                    yield OldPart(self._source, path, self.notes)


def migrate(source: Source) -> Source:
    """Return a recipe with what installed plugins say of old ones done to it, and warn of each change."""
    from diffloom.engine import hooks as specs

    for entry in Hooks("diffloom", specs).available():
        if mentions(entry.value.partition(":")[0], _HOOK):
            source = _migrated(source, entry)
    return source


def _migrated(source: Source, entry: Entry) -> Source:
    """Return a recipe migrated by one plugin; the same as it was where the plugin fails."""
    from diffloom.engine import hooks as specs

    hooks, old = Hooks("diffloom", specs), OldRecipe(Source(deepcopy(source.data), dict(source.marks)))
    try:
        for broken in hooks.enable([entry.name]):
            raise broken.error
        hooks.call(_HOOK, recipe=old)
    except BrokenPlugin as error:
        warnings.warn(f"a migration of recipes is left out: {error}", RecipeWarning, stacklevel=2)
        return source
    for mark, text in old.notes:
        message = f"{text} ({entry.source})"
        warnings.warn_explicit(message, RecipeWarning, mark.file if mark else "recipe", mark.line if mark else 0)
    return old._source


def _kind(path: KeyPath) -> str | None:
    """Return the kind of the component at a path; `None` where it is nested in another."""
    if len(path) == 1:
        return _ROLES.get(str(path[0]), str(path[0]))
    if len(path) == 2 and path[0] == "conditioners":
        return "conditioner"
    if len(path) == 3 and path[0] == "eval":
        return _JUDGING.get(str(path[1]))
    return None


def _at(data: Any, path: KeyPath) -> dict[str, Any]:
    for step in path:
        data = data[step]
    found: dict[str, Any] = data
    return found
