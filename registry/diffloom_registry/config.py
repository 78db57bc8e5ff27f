"""A validated configuration: everything that is needed to build one component, and nothing built yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from diffloom_registry.constructor import Slot
from diffloom_registry.errors import DiffloomError, KeyPath, dotted
from diffloom_registry.kinds import Entry


@dataclass
class Config:
    """What a component will be built from.

    Attributes:
        kind: Name of the kind.
        name: The name as it was asked for, ``name`` or ``distribution/name``.
        entry: Where the component is published.
        cls: Its class.
        values: Validated values of the constructor's plain parameters, defaults included.
        extras: Validated keys that every component of the kind accepts; ``None`` if the kind has none.
        children: Parameter -> nested component, or several in a list or dict; a built object stays itself.
        injected: Parameter -> the interface or service that the system provides.
        path: Where it stands in the data it came from.
        slots: The constructor's parameters that take other parts.
    """

    kind: str
    name: str
    entry: Entry
    cls: type
    values: dict[str, object] = field(default_factory=dict)
    extras: BaseModel | None = None
    children: dict[str, object] = field(default_factory=dict)
    injected: dict[str, type] = field(default_factory=dict)
    path: KeyPath = ()
    slots: Mapping[str, Slot] = field(default_factory=dict, repr=False, compare=False)

    def resolved(self) -> dict[str, object]:
        """Return plain data that says all of it, defaults included; validated, they give an equal one.

        Raises:
            DiffloomError: If a part was handed in as an object, which no data can say.
        """
        values = to_jsonable_python(self.values, by_alias=True, inf_nan_mode="constants")
        children = {name: self._resolved(name, child) for name, child in self.children.items()}
        extras = {} if self.extras is None else self.extras.model_dump(mode="python", by_alias=True)
        plain = to_jsonable_python(extras, by_alias=True, inf_nan_mode="constants")
        return {"type": self.name, **values, **children, **plain}

    def _resolved(self, name: str, child: object) -> object:
        if isinstance(child, Config):
            return child.resolved()
        if isinstance(child, list | tuple):
            return [self._resolved(name, item) for item in child]
        if isinstance(child, Mapping):
            return {key: self._resolved(name, item) for key, item in child.items()}
        raise DiffloomError(
            "a part that was handed in as an object cannot be written down",
            where=dotted((*self.path, name)),
            got=f"an object of type {type(child).__name__}",
            remedy="give it as a mapping with 'type'",
        )
