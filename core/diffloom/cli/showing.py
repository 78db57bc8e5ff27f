"""A component as people want to see it: summary, origin, parameters, and what it declares."""

import inspect
from collections.abc import Mapping
from typing import Any

from diffloom.cli.console import aligned
from diffloom.errors import DiffloomError, UnknownComponent
from diffloom.kinds import registry
from diffloom_registry import MISSING, Parameter



def facts(name: str) -> dict[str, Any]:
    """Return all that is known of a component, as plain data.

    Args:
        name: `kind/name`, `kind/distribution/name`, or a name that only one kind has.
    """
    kind, bare = _named(name)
    component = registry.component(kind, bare)
    entry = component.entry
    return {
        "kind": kind,
        "name": bare,
        "summary": component.summary,
        "distribution": entry.distribution,
        "version": entry.version,
        "value": entry.value,
        "source": entry.source,
        "parameters": [_parameter(parameter) for parameter in registry.parameters(kind, bare)],
        "declares": declared(component.cls, kind, bare),
    }


def described(found: Mapping[str, Any]) -> str:
    """Return the facts of a component as text."""
    lines = [f"{found['kind']}/{found['name']}  {found['source']}  {found['value']}"]
    lines += ["", found["summary"]] if found["summary"] else []
    for title, common in (("parameters", False), (f"keys of every {found['kind']}", True)):
        own = [parameter for parameter in found["parameters"] if parameter["common"] is common]
        if own:
            lines += ["", title, aligned([_row(parameter) for parameter in own], indent=2)]
    if found["declares"]:
        lines += ["", "declares", aligned([[key, str(value)] for key, value in found["declares"].items()], indent=2)]
    return "\n".join(lines)


def declared(cls: type, kind: str, name: str) -> dict[str, str]:
    """Return what a component says of itself, built with its defaults where that costs nothing; empty where it does not."""
    from diffloom.cli.declaring import DECLARED

    declare = DECLARED.get(kind)
    if declare is None or inspect.isabstract(cls):
        return {}
    try:
        return declare(name)
    except Exception:  # noqa: BLE001  a part that needs values, or data, shows its parameters only
        return {}


def _named(name: str) -> tuple[str, str]:
    """Return (kind, name)."""
    kind, slash, rest = name.partition("/")
    if slash and kind in registry.kinds:
        return kind, rest
    kinds = [known for known in registry.kinds if name in registry.names(known)]
    if len(kinds) == 1:
        return kinds[0], name
    if kinds:
        raise DiffloomError(
            f"several kinds have a {name!r}", expected=" or ".join(f"{kind}/{name}" for kind in kinds), got=name
        )
    if slash:
        registry.names(kind)  # says that there is no such kind
    everything = {known for kind in registry.kinds for known in registry.names(kind)}
    raise UnknownComponent("component", name, installed=everything)


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "type": parameter.annotation,
        "bounds": parameter.bounds,
        "required": parameter.default is MISSING and parameter.role != "injected",
        "default": None if parameter.default is MISSING else parameter.default,
        "help": parameter.description,
        "role": parameter.role,
        "kind": parameter.kind,
        "common": parameter.common,
    }


def _row(parameter: Mapping[str, Any]) -> list[str]:
    default = "required" if parameter["required"] else f"= {parameter['default']!r}"
    if parameter["role"] == "injected":
        default = "from the system"
    kind = " ".join(part for part in (parameter["type"], parameter["bounds"]) if part)
    return [parameter["name"], kind, default, parameter["help"]]
