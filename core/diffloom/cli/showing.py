"""A component as people want to see it: summary, origin, parameters, and what it declares."""

import inspect
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from diffloom.cli.console import aligned
from diffloom.errors import DiffloomError, UnknownComponent
from diffloom.kinds import registry
from diffloom_registry import MISSING, Parameter
from diffloom_registry.wording import show

_DEEP = " " * 8


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
            width = max(len(parameter["name"]) for parameter in own)
            lines += ["", title, *(line for parameter in own for line in _lines(parameter, width))]
    if found["declares"]:
        lines += ["", "declares", aligned([[key, str(value)] for key, value in found["declares"].items()], indent=2)]
    return "\n".join(lines)


def declared(cls: type, kind: str, name: str) -> dict[str, str]:
    """Return what a component says of itself, with its default values; empty where it needs more than those."""
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


def _lines(parameter: Mapping[str, Any], width: int) -> list[str]:
    """Return a parameter as its type and default, and below that what it is for."""
    default = "required" if parameter["required"] else f"default {show(parameter['default'])}"
    if parameter["role"] == "injected":
        default = "given by the system"
    kind = " ".join(part for part in (parameter["type"], parameter["bounds"]) if part)
    columns = max(shutil.get_terminal_size((100, 24)).columns, 60)
    told = textwrap.wrap(parameter["help"], min(columns, 110), initial_indent=_DEEP, subsequent_indent=_DEEP)
    return [f"  {parameter['name']:<{width}}  {kind}, {default}", *told]
