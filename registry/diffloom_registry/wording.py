"""Plain words for JSON Schemas and for values: what an error expected, and what it got."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from diffloom_registry.errors import article, listed

Json = dict[str, Any]
"""A JSON Schema, or a part of one."""

_LENGTH = 48
_NOUNS = {"string": "text", "boolean": "true or false", "null": "null"}
_FORMATS = {"path": "path", "file-path": "file that exists", "directory-path": "folder that exists"}
_BOUNDS = {
    "exclusiveMinimum": "> {}",
    "minimum": ">= {}",
    "exclusiveMaximum": "< {}",
    "maximum": "<= {}",
    "multipleOf": "multiple of {}",
    "minLength": "length >= {}",
    "maxLength": "length <= {}",
    "minItems": "length >= {}",
    "maxItems": "length <= {}",
    "minProperties": "length >= {}",
    "maxProperties": "length <= {}",
    "pattern": "matching {}",
}
_PHRASES = {
    "exclusiveMinimum": "greater than {}",
    "minimum": "of at least {}",
    "exclusiveMaximum": "less than {}",
    "maximum": "of at most {}",
    "multipleOf": "that is a multiple of {}",
    "minLength": "of length at least {}",
    "maxLength": "of length at most {}",
    "minItems": "of length at least {}",
    "maxItems": "of length at most {}",
    "minProperties": "of length at least {}",
    "maxProperties": "of length at most {}",
    "pattern": "matching {}",
}


def resolve(schema: Json, definitions: Json) -> Json:
    """Follow ``$ref`` to the definition it points to; empty if it is a kind of component."""
    while "$ref" in schema:
        found: Json = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
        schema = found
    return schema


def describe(schema: Json, definitions: Json, *, plural: bool = False) -> str:
    """Say what a schema accepts, such as ``an integer greater than 0``; empty if it accepts anything.

    Args:
        schema: A JSON Schema.
        definitions: What its ``$ref`` point to, by name.
        plural: Speak of several values, as in ``a list of integers``.
    """
    reference = str(schema.get("$ref", "")).rpartition("/")[2]
    if reference and reference not in definitions:  # a kind of component
        return f"{reference}s" if plural else article(reference)
    schema = resolve(schema, definitions)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            texts = [describe(part, definitions, plural=plural) for part in schema[key]]
            return " or ".join(dict.fromkeys(texts)) if all(texts) else ""
    if "const" in schema:
        return show(schema["const"])
    if "enum" in schema:
        choices = listed([show(choice) for choice in schema["enum"]])
        return choices if len(schema["enum"]) == 1 else f"one of {choices}"
    noun = _noun(schema, definitions, plural)
    if not noun:
        return ""
    bounds = [phrase.format(schema[key]) for key, phrase in _PHRASES.items() if _stated(schema, key)]
    return " ".join((noun, " and ".join(bounds))).strip()


def bounds(schema: Json) -> str:
    """Return the bounds of a parameter in short, such as ``> 0, <= 1``."""
    parts = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    if len(parts) != 1:
        return ""
    return ", ".join(text.format(parts[0][key]) for key, text in _BOUNDS.items() if _stated(parts[0], key))


def descend(schema: Json, step: str | int, definitions: Json) -> Json:
    """Return the schema of the value under a key or at a list position; empty if it is not described."""
    schema = resolve(schema, definitions)
    for key in ("anyOf", "oneOf"):
        for part in schema.get(key, ()):
            inside = descend(part, step, definitions)
            if inside:
                return inside
    if isinstance(step, int):
        prefix = schema.get("prefixItems", ())
        found: object = prefix[step] if step < len(prefix) else schema.get("items")
    else:
        found = schema.get("properties", {}).get(step, schema.get("additionalProperties"))
    return resolve(found, definitions) if isinstance(found, dict) else {}


def keys(schema: Json, definitions: Json) -> Json:
    """Return the keys that a mapping may have, with the schema of each."""
    schema = resolve(schema, definitions)
    found: Json = dict(schema.get("properties", {}))
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        found |= keys(part, definitions)
    return found


def show(value: object) -> str:
    """Write a value as the reader of a recipe knows it, and short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | PurePath):
        return _short(repr(str(value)))
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, value))
        return _short(f"a mapping with {keys}") if keys else "an empty mapping"
    if isinstance(value, list | tuple):
        items = ", ".join(show(item) for item in value[:_LENGTH])
        return _short(f"the list [{items}]") if items else "an empty list"
    return f"an object of type {type(value).__name__}"


def type_text(annotation: object) -> str:
    """Write an annotation as source code would: ``tuple[int, ...] | None``."""
    if annotation is None or annotation is NoneType:
        return "None"
    if annotation is Ellipsis:
        return "..."
    if isinstance(annotation, list):  # the arguments of a Callable
        return f"[{', '.join(map(type_text, annotation))}]"
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(parts[0])
    if origin in (Union, UnionType):
        return " | ".join(type_text(part) for part in parts)
    if origin is Literal:
        return f"Literal[{', '.join(repr(part) for part in parts)}]"
    name = str(getattr(origin or annotation, "__name__", annotation))
    inside = ", ".join(map(type_text, parts))
    return f"{name}[{inside}]" if inside else name


def _noun(schema: Json, definitions: Json, plural: bool) -> str:
    kind = schema.get("type")
    if kind == "array":
        return _array(schema, definitions, plural)
    if kind == "object":
        values = schema.get("additionalProperties")
        inside = describe(values, definitions, plural=True) if isinstance(values, dict) else ""
        return ("mappings" if plural else "a mapping") + (f" to {inside}" if inside else "")
    if kind in ("integer", "number"):
        return f"{kind}s" if plural else {"integer": "an integer", "number": "a number"}[kind]
    if kind == "string" and "format" in schema:
        noun = _FORMATS.get(schema["format"], f"text in the form of a {schema['format']}")
        return noun if noun.startswith("text") else f"{noun}s" if plural else f"a {noun}"
    return _NOUNS.get(str(kind), "")


def _array(schema: Json, definitions: Json, plural: bool) -> str:
    noun = "lists" if plural else "a list"
    prefix = schema.get("prefixItems")
    if prefix:
        texts = dict.fromkeys(describe(part, definitions, plural=len(prefix) > 1) for part in prefix)
        inside = next(iter(texts)) if len(texts) == 1 else ""
        return f"{noun} of {len(prefix)} {inside or 'values'}"
    inside = describe(schema.get("items", {}), definitions, plural=True)
    return f"{noun} of {inside}" if inside else noun


def _stated(schema: Json, key: str) -> bool:
    """Tell whether the schema sets a bound of its own, beside the length that a fixed tuple has anyway."""
    return key in schema and not (key in ("minItems", "maxItems") and "prefixItems" in schema)


def _short(text: str) -> str:
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…"
