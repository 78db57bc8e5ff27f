"""JSON Schema (draft 2020-12) of everything installed, for editors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffloom_registry.constructor import Component, Slot
from diffloom_registry.fields import Fields
from diffloom_registry.wording import Json


def definitions(components: Mapping[str, Sequence[tuple[str, Component]]], extras: Mapping[str, Fields | None]) -> Json:
    """Return ``{"$defs": ...}`` with a definition for each kind, a ``oneOf`` over its components.

    Args:
        components: Kind -> the names that choose a component, with the component.
        extras: Kind -> the keys that all its components accept beside their own.
    """
    found: Json = {}
    for kind, named in components.items():
        choices = [_component(kind, name, component, extras.get(kind), found) for name, component in named]
        found[kind] = {"oneOf": choices} if choices else {"not": {}}
    return {"$defs": found}


def _component(kind: str, name: str, component: Component, extras: Fields | None, found: Json) -> Json:
    """Return one component's schema; definitions that it refers to are added to ``found``."""
    properties: Json = {"type": {"const": name}}
    required = ["type"]
    own = _hoisted(component.fields, f"{kind}.{name}", found)
    for parameter in component.annotations:
        slot = component.slots.get(parameter)
        if slot is None or slot.shape != "one":
            properties[parameter] = own[parameter]
            required += [parameter] if parameter in component.fields.required else []
        elif slot.kind is not None:
            properties[parameter] = _single(slot)
    if extras is not None:
        properties |= _hoisted(extras, kind, found)
        required += extras.required
    schema: Json = {"title": name}
    if component.summary:
        schema["description"] = component.summary
    return schema | {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _single(slot: Slot) -> Json:
    reference = {"$ref": f"#/$defs/{slot.kind}"}
    schema: Json = {"anyOf": [reference, {"type": "null"}]} if slot.optional else dict(reference)
    if slot.description:
        schema["description"] = slot.description
    return schema


def _hoisted(fields: Fields, prefix: str, found: Json) -> Json:
    """Return the properties with their private definitions moved to ``found`` under names of their own."""
    names = {f"#/$defs/{name}": f"#/$defs/{prefix}.{name}" for name in fields.definitions}
    found.update({f"{prefix}.{name}": _renamed(schema, names) for name, schema in fields.definitions.items()})
    properties: Json = {key: _renamed(schema, names) for key, schema in fields.properties.items()}
    return properties


def _renamed(schema: object, names: Mapping[str, str]) -> object:
    if isinstance(schema, dict):
        return {
            key: names.get(value, value) if key == "$ref" else _renamed(value, names) for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    return schema
