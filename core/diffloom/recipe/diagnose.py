"""Diagnose: every problem of a recipe at once, those of its text and those of its parts.

A recipe whose text is wrong cannot be built. So that its author need not mend it piece by piece, what is wrong is
left out, the rest is built without memory, and what that shows is told as well. Nothing is told that may only follow
from what was left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from diffloom.data import Dataset, Sample
from diffloom.errors import DataError, DiffloomError, RecipeError
from diffloom.kinds import registry as installed
from diffloom.recipe.build import build
from diffloom.recipe.check import Report, check
from diffloom.recipe.contradictions import contradictions
from diffloom.recipe.recipe import Recipe, gather, validate
from diffloom.recipe.source import KeyPath, Source, walk
from diffloom.space import Space
from diffloom_registry import Config, Entry, Problem, Registry

_DATA = "data"
_NEEDED = ("task", "schedule", "autoencoder", "denoiser")
_HEAD = {"diffloom": 1, "name": "unnamed"}
_SIZE = 64


def diagnose(*paths: str | Path, settings: Sequence[str] = (), registry: Registry = installed) -> tuple[Recipe, Report]:
    """Return a recipe that is right in every way, with the figures of its system.

    Args:
        paths: Files laid over each other, or the name of a recipe that comes with diffloom.
        settings: `path.to.key=value` texts.
        registry: Where components come from.

    Raises:
        RecipeError: With every problem, one line each.
        DiffloomError: Where a part cannot be used and nothing else is wrong.
    """
    source = gather(*paths, settings=settings)
    try:
        recipe = validate(source, registry)
    except RecipeError as error:
        raise RecipeError.of(_once([*error.lines, *_beyond(source, error.problems, registry)])) from error
    try:
        return recipe, check(recipe)
    except DiffloomError as error:
        more = () if _dataset(recipe) else _unfit(recipe, _guess(recipe.parts[_DATA]))
        lines = _once([*str(error).splitlines(), *more])
        if len(lines) == 1:
            raise
        raise RecipeError.of(lines) from error


def _beyond(source: Source, problems: Sequence[Problem], registry: Registry) -> Iterator[str]:
    """Yield what is wrong with the parts of a recipe whose text has problems."""
    left_out: set[KeyPath] = set()
    data = deepcopy(source.data)
    while problems:
        paths = {path for problem in problems if (path := _removable(problem, data))}
        if not (paths or any(problem.path[0] in _HEAD for problem in problems if problem.path)):
            return
        left_out |= paths
        for path in paths:
            _remove(data, path)
        data = {**_HEAD, **data}
        try:
            recipe = validate(Source(data, source.marks), registry)
        except RecipeError as error:
            problems = error.problems
        else:
            yield from _parts(recipe, left_out)
            return


def _parts(recipe: Recipe, left_out: set[KeyPath]) -> Iterator[str]:
    """Yield what is wrong with the parts of a recipe from which something was left out."""
    dataset = None
    try:
        dataset = cast(Dataset, recipe.registry.instantiate(recipe.parts[_DATA]))
    except DataError as error:
        yield f"{recipe.source.mark((_DATA,))}: {_DATA}: {error}"
    except DiffloomError:
        pass  # it may have needed what was left out
    if not any((role,) in left_out for role in _NEEDED):
        yield from _unfit(recipe, dataset.space if dataset else _guess(recipe.parts[_DATA]))


def _unfit(recipe: Recipe, space: Space) -> Iterator[str]:
    """Yield the contradictions between the parts of a recipe, whatever its data are."""
    entry = Entry("dataset", "stand-in", f"{__name__}:{_StandIn.__name__}")
    config = Config("dataset", entry.name, entry, _StandIn, {"space": space}, path=(_DATA,))
    recipe = replace(recipe, parts={**recipe.parts, _DATA: config})
    try:
        built = build(recipe, meta=True)
        yield from recipe.error(list(contradictions(recipe, built.system, built.dataset))).lines
    except DiffloomError as error:
        yield from str(error).splitlines()


def _dataset(recipe: Recipe) -> object | None:
    """Return the data, or nothing where they cannot be read."""
    try:
        return recipe.registry.instantiate(recipe.parts[_DATA])
    except DiffloomError:
        return None


def _guess(config: Config) -> Space:
    """Return the space that images probably have, judged by what their data set was told."""
    channels, size = config.values.get("channels"), config.values.get("size")
    side = size if isinstance(size, int) else _SIZE
    return Space(channels=channels if isinstance(channels, int) else 3, size=(side, side))


def _removable(problem: Problem, data: Mapping[str, Any]) -> KeyPath:
    """Return the path of what must go for a problem to go; empty where nothing helps.

    That is a key with a wrong value, a component of an unknown type or with a missing key, and all of a list.
    """
    path, known = problem.path, {found for found, _ in walk(data)}
    while path not in known:
        path = path[:-1]
    if path and path[-1] == "type":
        path = path[:-1]
    for place, step in enumerate(path):
        if isinstance(step, int):
            return path[:place]
    return path


def _remove(data: dict[str, Any], path: KeyPath) -> None:
    """Take a key away, if something above it has not been taken yet."""
    *above, last = path
    for step in above:
        data = data.get(str(step), {})
    data.pop(str(last), None)


def _once(lines: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(lines))


class _Everything(tuple[str, ...]):
    """Keys of samples of which nothing is known: any may be there."""

    def __contains__(self, key: object) -> bool:
        return True


class _StandIn(Dataset):
    """Data that cannot be read: only their space is known."""

    keys = _Everything()

    def __init__(self, *, space: Space) -> None:
        self.space = space

    @property
    def holds(self) -> tuple[str, ...]:
        """Whatever it is asked for."""
        return self.keys

    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> Sample:
        raise DataError("a stand-in has no samples")
