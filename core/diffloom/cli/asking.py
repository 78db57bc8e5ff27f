"""What a user asks a system for: seeds, and conditions."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffloom.errors import DataError, RecipeError

if TYPE_CHECKING:
    from diffloom.conditioner import Batch
    from diffloom.engine.run import Run

_PICTURE = 3
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def numbers(text: str | None, count: int | None) -> list[int] | None:
    """Return the seeds that a list such as `0-15,20` names, or the first `count` where there is none.

    Raises:
        RecipeError: Where it is no such list, or names another number of seeds than `count`.
    """
    if text is None:
        return None if count is None else list(range(count))
    seeds: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise RecipeError(
                "this is no list of seeds", where="--seeds", expected="such as 0-15 or 3,5,9", got=repr(text)
            )
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    if count is not None and count != len(seeds):
        raise RecipeError(
            "there is one seed for each item",
            where="--seeds",
            expected=f"{count} seeds, for --count {count}",
            got=str(len(seeds)),
            remedy="leave --count out",
        )
    return seeds


def conditions(run: "Run", texts: Sequence[str], count: int) -> "Batch":
    """Return a batch of `count` things to ask for.

    What is needed and nobody gave comes from the system's own prompts; what can be done without is left out.

    Args:
        run: Whose system is asked.
        texts: `key=value` each; the value is YAML, a list is taken in turn, a class may be given by name, and a
            picture by its file.
        count: How many items.

    Raises:
        DataError: Where nobody reads a key, or a value is no class or no picture.
    """
    from diffloom.data import collate

    parts = run.system.conditioners.values()
    needs = sorted({*run.system.task.asks, *(key for part in parts for key in part.needs)})
    known = sorted({*needs, *(key for part in parts for key in part.wants)})
    given = dict(_value(text, known, run) for text in texts)
    columns = [{key: values[i % len(values)] for key, values in given.items()} for i in range(count)]
    asked = collate(columns)
    if set(needs) <= set(asked) and not _texts(asked):
        return asked
    prompts = run.system.prompts(count)
    for key in _texts(asked):
        if _is_number(prompts.get(key)):
            raise DataError(
                f"{key!r} is a number in the data",
                where=f"--give {key}",
                expected="a number, or a list of them",
                got=repr(asked[key][0]),
            )
    return {key: value for key, value in prompts.items() if key in needs} | asked


def _texts(asked: "Batch") -> list[str]:
    """Return the keys that were given as text."""
    return [key for key, value in asked.items() if isinstance(value, list) and any(isinstance(v, str) for v in value)]


def _is_number(value: object) -> bool:
    """Tell whether a column of a batch holds numbers."""
    from torch import Tensor

    return isinstance(value, Tensor)


def _value(text: str, needs: Sequence[str], run: "Run") -> tuple[str, list[Any]]:
    from diffloom.recipe.source import setting

    key, equals, _ = text.partition("=")
    if not equals or key not in needs:
        raise DataError(
            "nobody listens to this" if equals else "this asks for nothing",
            where=f"--give {text}",
            expected=f"KEY=VALUE with one of the keys {', '.join(needs)}"
            if needs
            else "no --give: there is nothing to ask for",
        )
    value = setting(text).data[key]
    values = value if isinstance(value, list) else [value]
    if key == "label":
        return key, [_class(item, text, run) for item in values]
    return key, [_picture(item, key, text, run) for item in values]


def _picture(value: object, key: str, text: str, run: "Run") -> object:
    """Return the picture in a file, like those that the data have under the key; other values as they are."""
    from torch import Tensor

    if key not in run.dataset.holds or not isinstance(value, str):
        return value
    like = run.dataset.get(0)[key]
    if not (isinstance(like, Tensor) and like.dim() == _PICTURE):
        return value
    from diffloom.cli.pictures import read

    maps = {"mask", *(key for transform in run.dataset.transforms for key in transform.maps)}
    return read(value, like, mask=key in maps, where=f"--give {text}")


def _class(value: object, text: str, run: "Run") -> int:
    """Return the number of a class that is given by number or by name."""
    classes = run.dataset.classes
    if isinstance(value, str) and value in classes:
        return classes.index(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and (not classes or 0 <= int(str(value)) < len(classes)):
        return int(str(value))
    raise DataError(
        "there is no such class",
        where=f"--give {text}",
        expected=f"0 … {len(classes) - 1}, or one of {', '.join(classes[:16])}" if classes else "a whole number",
        got=repr(value),
    )
