"""What a component accepts, for showing to people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from diffloom_registry.constructor import MISSING, Component
from diffloom_registry.fields import Fields
from diffloom_registry.wording import Json, bounds, type_text

Role = Literal["value", "injected", "nested"]


@dataclass(frozen=True)
class Parameter:
    """One key that a component accepts, for showing to people.

    Attributes:
        name: The key.
        annotation: Its type, as source code writes it.
        default: Its default, or ``MISSING``.
        bounds: Its bounds in short, such as ``> 0``.
        description: What it is for.
        role: A plain ``value``, a part that is ``injected`` by the system, or ``nested`` components.
        kind: The kind of the parts that it takes, if it takes components.
        common: Whether every component of the kind accepts it, beside what its constructor takes.
    """

    name: str
    annotation: str
    default: object
    bounds: str
    description: str
    role: Role
    kind: str | None = None
    common: bool = False


def own(component: Component) -> Iterator[Parameter]:
    """Yield what the constructor takes."""
    for name, annotation in component.annotations.items():
        slot = component.slots.get(name)
        shown: Json = component.fields.properties.get(name, {})
        role: Role = "value" if slot is None else "injected" if slot.shape == "one" else "nested"
        yield Parameter(
            name,
            type_text(annotation),
            component.defaults[name],
            bounds(shown),
            slot.description if slot else shown.get("description", ""),
            role,
            slot.kind if slot else None,
        )


def common(extras: Fields) -> Iterator[Parameter]:
    """Yield what every component of the kind accepts beside."""
    for name, field in extras.model.model_fields.items():
        key = field.alias or name
        shown: Json = extras.properties[key]
        annotation, told = type_text(field.annotation), field.description or ""
        default = MISSING if field.is_required() else field.get_default(call_default_factory=True)
        yield Parameter(key, annotation, default, bounds(shown), told, "value", common=True)
