"""Schema: the JSON Schema (draft 2020-12) of a whole recipe, made of everything that is installed.

Editors complete and check recipes by it. A recipe that `extends` another may leave out what its base says, so for it
components need no `type` and none of their required keys, and `null` takes something away.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from diffloom.kinds import registry as installed
from diffloom.recipe.recipe import LOCK, ROLES, Header
from diffloom_registry import Registry

Json = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID = "urn:diffloom:recipe:1"
_CHANGE = ".change"
_REQUIRED = ("diffloom", "name", "data", "task")


def recipe_schema(registry: Registry = installed) -> Json:
    """Return the JSON Schema of recipes.

    Args:
        registry: Whose components a recipe may name; those that cannot be used are left out.
    """
    header: Json = Header.model_json_schema()
    definitions: Json = {**header.pop("$defs", {}), **registry.schema()["$defs"]}
    definitions |= {kind + _CHANGE: _change(definitions[kind]) for kind in registry.kinds}
    _judging(definitions)
    strict = {role: _ref(kind) for role, kind in ROLES.items()}
    strict["conditioners"] = {"additionalProperties": _ref("conditioner")}
    return {
        "$schema": DIALECT,
        "$id": ID,
        "title": "diffloom recipe",
        "description": "One component for each role of a diffusion system, and how it is trained, sampled and judged.",
        "type": "object",
        "properties": {**_own(), **header["properties"], **_roles(registry)},
        "additionalProperties": False,
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": list(_REQUIRED), "properties": {**strict, "eval": _ref("EvalSettings")}},
        "$defs": definitions,
    }


def _own() -> Json:
    """Return the keys that only files have."""
    return {
        "extends": {
            "description": "Recipes that this one is laid over, the last one on top; paths from this file.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        },
        LOCK: {"description": "Written by diffloom: the versions that a run was made with.", "type": "object"},
    }


def _roles(registry: Registry) -> Json:
    """Return the roles of a recipe, as loosely as a recipe that extends another may fill them."""
    found: Json = {
        role: {"description": _sentence(registry.kinds[kind].summary), **_ref(kind + _CHANGE)}
        for role, kind in ROLES.items()
    }
    found["conditioners"] = {
        "description": "What the denoiser is told: names of your choice, each with a conditioner, in order.",
        "type": ["object", "null"],
        "additionalProperties": _ref("conditioner" + _CHANGE),
    }
    found["eval"] = {"description": "How a run is judged.", **_ref("EvalSettings" + _CHANGE)}
    return found


def _judging(definitions: Json) -> None:
    """Let the evaluation's settings refer to components."""
    for ending in (_CHANGE, ""):
        settings: Json = deepcopy(definitions["EvalSettings"])
        properties = settings["properties"]
        properties["metrics"]["items"] = _ref("metric")
        properties["samplers"]["additionalProperties"] = _ref("sampler" + ending)
        held_out = {key: value for key, value in properties["held_out"].items() if key in ("description", "default")}
        properties["held_out"] = held_out | {"anyOf": [_ref("dataset" + _CHANGE), {"type": "null"}]}
        definitions["EvalSettings" + ending] = settings


def _change(kind: Mapping[str, Any]) -> Json:
    """Return the schema of what may be laid over a component: some of its keys, another component, or null."""
    components = [deepcopy(component) for component in kind.get("oneOf", ())]
    for component in components:
        component["required"] = ["type"]
    keys = sorted({key for component in components for key in component["properties"]} - {"type"})
    some = {"type": "object", "not": {"required": ["type"]}, "propertyNames": {"enum": keys}}
    return {"anyOf": [*components, some, {"type": "null"}]}


def _ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
