"""A pydantic model as a judge of plain data: values, or problems in plain words with the path of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from diffloom_registry.errors import KeyPath, Problem, did_you_mean, nearest
from diffloom_registry.wording import Json, descend, describe, keys, show

_MESSAGES = {
    "missing": "missing",
    "extra_forbidden": "unknown key",
    "unexpected_keyword_argument": "unknown key",
    "literal_error": "unknown value",
    "enum": "unknown value",
    "too_short": "wrong length",
    "too_long": "wrong length",
    "string_too_short": "wrong length",
    "string_too_long": "wrong length",
    "greater_than": "out of range",
    "greater_than_equal": "out of range",
    "less_than": "out of range",
    "less_than_equal": "out of range",
    "finite_number": "out of range",
    "multiple_of": "wrong value",
    "string_pattern_mismatch": "wrong value",
}
_INSIDE = ("items", "additionalProperties")


class Fields:
    """The keys of one pydantic model.

    Args:
        model: The model; it forbids other keys.
        nested: Key that holds several components -> their kind; the model knows their number only.
    """

    def __init__(self, model: type[BaseModel], nested: Mapping[str, str] | None = None) -> None:
        self.model = model
        self.schema: Json = model.model_json_schema()
        self.definitions: Json = self.schema.pop("$defs", {})
        self.properties: Json = self.schema.get("properties", {})
        for schema in self.properties.values():
            schema.pop("title", None)
        for key, kind in (nested or {}).items():
            self.properties[key].pop("default", None)
            for part in self.properties[key].get("anyOf", [self.properties[key]]):
                part.update({inside: {"$ref": f"#/$defs/{kind}"} for inside in _INSIDE if inside in part})
        self.required: list[str] = self.schema.get("required", [])

    def check(self, data: Mapping[str, object], path: KeyPath, strict: bool) -> tuple[BaseModel | None, list[Problem]]:
        """Validate data.

        Args:
            data: Values by key.
            path: Where ``data`` stands, for the problems.
            strict: Take the data as JSON, where text is never a number and a list may become a tuple;
                otherwise as Python objects, which are converted where that loses nothing.

        Returns:
            The model, or ``None`` and what is wrong.
        """
        problems: list[Problem] = []
        unwritable: set[str] = set()
        if strict:
            for key, value in data.items():
                found = list(_unwritable(value, (*path, key), ()))
                problems += found
                unwritable |= {key} if found else set()
        usable = {key: value for key, value in data.items() if key not in unwritable}
        try:
            if strict:
                model = self.model.model_validate_json(json.dumps(usable, default=_written), strict=True)
            else:
                model = self.model.model_validate(usable)
        except ValidationError as error:
            details = [detail for detail in error.errors() if detail["loc"][:1] not in _first(unwritable)]
            return None, [*problems, *self._problems(details, usable, path)]
        return (None, problems) if problems else (model, [])

    def _problems(self, details: Sequence[ErrorDetails], data: Mapping[str, object], path: KeyPath) -> list[Problem]:
        """Translate pydantic's errors: one for a value, however many members of a union refused it."""
        places = [_place(detail, data) for detail in details]
        found: dict[KeyPath, Problem] = {}
        for detail, place in zip(details, places, strict=True):
            of_union = len(place) < len(detail["loc"])
            deeper = any(len(other) > len(place) and other[: len(place)] == place for other in places)
            if place not in found and not (of_union and deeper):
                found[place] = self._problem(detail, place, path)
        return list(found.values())

    def _problem(self, detail: ErrorDetails, place: KeyPath, path: KeyPath) -> Problem:
        code = detail["type"]
        above: Json = self.schema
        for step in place[:-1]:
            above = descend(above, step, self.definitions)
        schema = descend(above, place[-1], self.definitions) if place else self.schema
        message = _MESSAGES.get(code, "wrong type")
        expected = describe(schema, self.definitions) or detail["msg"].removeprefix("Input should be ")
        got: str | None = show(detail["input"])
        remedy = None
        if code == "missing":
            expected, got = describe(schema, self.definitions), None
        elif message == "unknown key":
            return unknown_key((*path, *place), keys(above, self.definitions))
        elif code in ("value_error", "assertion_error"):
            message, expected = str(detail.get("ctx", {}).get("error", detail["msg"])), ""
            got = got if place else None
        elif message == "unknown value" and isinstance(detail["input"], str):
            near = nearest(detail["input"], [choice for choice in schema.get("enum", ()) if isinstance(choice, str)])
            remedy = did_you_mean(near) if near else None
        elif message == "wrong type" and not code.endswith(("_type", "_parsing", "_from_float")):
            message, expected = detail["msg"][:1].lower() + detail["msg"][1:], ""
        return Problem((*path, *place), message, expected or None, got, remedy)


def unknown_key(path: KeyPath, known: Mapping[str, object]) -> Problem:
    """Say that the last key of ``path`` is not one of the known ones."""
    near = nearest(str(path[-1]), known)
    expected = f"one of {', '.join(sorted(known))}" if known else "no further keys"
    return Problem(path, "unknown key", expected, None, did_you_mean(near) if near else None)


def _place(detail: ErrorDetails, data: object) -> KeyPath:
    """Return what of an error's location leads through the data; pydantic mixes in names of types."""
    place: list[str | int] = []
    loc = detail["loc"]
    for index, step in enumerate(loc):
        if isinstance(data, Mapping) and (step in data or str(step) in {str(key) for key in data}):
            data = next(value for key, value in data.items() if str(key) == str(step))
        elif isinstance(data, Sequence) and not isinstance(data, str) and isinstance(step, int) and step < len(data):
            data = data[step]
        elif not (detail["type"] == "missing" and index == len(loc) - 1):
            continue
        place.append(step)
    return tuple(place)


def _first(keys: set[str]) -> set[tuple[str | int, ...]]:
    return {(key,) for key in keys}


def _written(value: object) -> str:
    """Write what YAML knows and JSON does not."""
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no plain value")


def _unwritable(value: object, path: KeyPath, above: tuple[int, ...]) -> Iterator[Problem]:
    """Yield a problem for each leaf that plain data cannot hold."""
    if value is None or isinstance(value, str | int | float | date):
        return
    expected = "text, a number, true, false, null, a list or a mapping"
    if id(value) in above:
        yield Problem(path, "wrong value", expected, "a value that contains itself")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str | int | float | None):
                yield from _unwritable(item, (*path, str(key)), (*above, id(value)))
            else:
                yield Problem(path, "wrong type", "keys that are text", f"the key {key!r}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _unwritable(item, (*path, index), (*above, id(value)))
    else:
        yield Problem(path, "wrong type", expected, show(value))
