"""From plain data to a `Config`: every problem at once, down to the leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from diffloom_registry.config import Config
from diffloom_registry.constructor import MISSING, Component, Slot
from diffloom_registry.errors import (
    DiffloomError,
    KeyPath,
    Problem,
    UnknownComponent,
    article,
    listed,
)
from diffloom_registry.fields import Fields, unknown_key
from diffloom_registry.wording import show


@dataclass
class Validator:
    """One validation: where it looks names up, and what it found wrong.

    Attributes:
        component: Kind and name -> the verified component; raises `DiffloomError`.
        extras: Kind -> the keys that all its components accept beside their own.
        names: Kind -> the names that exist.
        strict: Whether the data are those of a recipe, rather than Python objects.
        problems: What is wrong.
        cause: The first error that a component itself raised.
    """

    component: Callable[[str, str], Component]
    extras: Callable[[str], Fields | None]
    names: Callable[[str], list[str]]
    strict: bool
    problems: list[Problem] = field(default_factory=list)
    cause: DiffloomError | None = None

    def config(self, kind: str, data: object, path: KeyPath) -> Config | None:
        """Validate the data of one component and of all that are nested in it."""
        found = self._component(kind, data, path)
        if found is None or not isinstance(data, Mapping):
            return None
        name, component = found
        extras = self.extras(kind)
        common: Iterable[str] = extras.properties if extras else ()
        known = dict.fromkeys((*component.annotations, *common, "type"))
        for key in data:
            if key not in known:
                self.problems.append(unknown_key((*path, key if isinstance(key, int) else str(key)), known))
        told = {str(key): value for key, value in data.items() if key in known and key != "type"}
        config = Config(kind, name, component.entry, component.cls, path=path, slots=component.slots)
        if extras:
            config.extras = self._judge(extras, {key: told[key] for key in told if key in common}, path)
        self._values(config, component, told)
        for slot in component.slots.values():
            if slot.shape == "one":
                self._single(config, slot, told)
            elif told.get(slot.name) is not None:
                config.children[slot.name] = self._several(slot, told[slot.name], (*path, slot.name))
        return config

    def _component(self, kind: str, data: object, path: KeyPath) -> tuple[str, Component] | None:
        """Look up the component that the data name."""
        if not isinstance(data, Mapping):
            remedy = f"write {{type: {data}}}" if isinstance(data, str) else None
            self._add(path, "wrong type", f"a mapping with 'type', {article(kind)}", show(data), remedy)
            return None
        names = listed(self.names(kind))
        if "type" not in data:
            self._add((*path, "type"), "missing", f"{article(kind)}, one of {names}" if names else article(kind))
            return None
        name = data["type"]
        if not isinstance(name, str):
            self._add((*path, "type"), "wrong type", f"the name of {article(kind)}", show(name))
            return None
        try:
            return name, self.component(kind, name)
        except UnknownComponent as error:
            self._add((*path, "type"), error.message, error.expected, error.got, error.remedy)
        except DiffloomError as error:
            message = ": ".join(part for part in (error.where, error.message) if part)
            self._add((*path, "type"), message, error.expected, error.got, error.remedy)
            self.cause = self.cause or error
        return None

    def _values(self, config: Config, component: Component, told: Mapping[str, object]) -> None:
        """Validate the plain parameters, and the lengths of lists and dicts of parts."""
        fields, slots = component.fields, component.slots
        given = {key: value for key, value in told.items() if key in fields.properties}
        given |= {key: _outline(value) for key, value in given.items() if key in slots}
        model = self._judge(fields, given, config.path)
        if model is not None:
            names = {f"p_{name}": name for name in fields.properties}
            values = {names[key]: value for key, value in model}
            told_none = {name for name in slots if name in values and told.get(name, MISSING) is None}
            config.values = {key: value for key, value in values.items() if key not in slots or key in told_none}

    def _single(self, config: Config, slot: Slot, told: Mapping[str, object]) -> None:
        """Validate a parameter that takes one part: nested here, or left to be injected."""
        path = (*config.path, slot.name)
        value = told.get(slot.name, MISSING)
        if value is MISSING:
            config.injected[slot.name] = slot.cls
        elif value is None and slot.optional:
            config.values[slot.name] = None
        elif slot.kind is None and (self.strict or not isinstance(value, slot.cls)):
            expected = "no such key" if self.strict else f"an object of type {slot.cls.__name__}"
            remedy = f"leave {slot.name!r} out: the system provides it"
            self._add(path, "wrong type", expected, show(value), remedy)
        else:
            config.children[slot.name] = self._child(slot, value, path)

    def _several(self, slot: Slot, value: object, path: KeyPath) -> object:
        """Validate a parameter that takes several parts; its own type was judged with the values."""
        if slot.shape == "dict" and isinstance(value, Mapping):
            return {str(key): self._child(slot, item, (*path, str(key))) for key, item in value.items()}
        if slot.shape == "list" and isinstance(value, list | tuple):
            items = [self._child(slot, item, (*path, index)) for index, item in enumerate(value)]
            return tuple(items) if slot.is_tuple else items
        return None

    def _child(self, slot: Slot, value: object, path: KeyPath) -> object:
        if not self.strict and isinstance(value, slot.cls):
            return value
        return self.config(str(slot.kind), value, path)

    def _judge(self, fields: Fields, data: Mapping[str, object], path: KeyPath) -> BaseModel | None:
        model, problems = fields.check(data, path, self.strict)
        self.problems += problems
        return model

    def _add(
        self,
        path: KeyPath,
        message: str,
        expected: str | None = None,
        got: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problems.append(Problem(path, message, expected, got, remedy))


def _outline(value: object) -> object:
    """Return a list or mapping of the same length with nothing in it; what is in it is judged elsewhere."""
    if isinstance(value, Mapping):
        return dict.fromkeys(map(str, value))
    if isinstance(value, list | tuple):
        return [None] * len(value)
    return value
