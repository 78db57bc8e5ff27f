"""Names to classes: a registry of typed components that installed packages publish through entry points.

It finds, verifies, configures and builds components, and knows nothing of what they are for. Everything here is
imported on first use, so that whoever needs only its errors, or its discovery, does not wait for the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffloom_registry.config import Config
    from diffloom_registry.constructor import MISSING, Component, Slot
    from diffloom_registry.discovery import Broken
    from diffloom_registry.errors import (
        BrokenPlugin,
        ConfigError,
        DiffloomError,
        KeyPath,
        Problem,
        UnknownComponent,
    )
    from diffloom_registry.kinds import Entry, Kind
    from diffloom_registry.override import Override
    from diffloom_registry.parameters import Parameter
    from diffloom_registry.registry import Registry

_HOMES = {
    "MISSING": "constructor",
    "Broken": "discovery",
    "BrokenPlugin": "errors",
    "Component": "constructor",
    "Config": "config",
    "ConfigError": "errors",
    "DiffloomError": "errors",
    "Entry": "kinds",
    "KeyPath": "errors",
    "Kind": "kinds",
    "Override": "override",
    "Parameter": "parameters",
    "Problem": "errors",
    "Registry": "registry",
    "Slot": "constructor",
    "UnknownComponent": "errors",
}

__all__ = [
    "MISSING",
    "Broken",
    "BrokenPlugin",
    "Component",
    "Config",
    "ConfigError",
    "DiffloomError",
    "Entry",
    "KeyPath",
    "Kind",
    "Override",
    "Parameter",
    "Problem",
    "Registry",
    "Slot",
    "UnknownComponent",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'diffloom_registry' has no attribute {name!r}")
    return getattr(import_module(f"diffloom_registry.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
