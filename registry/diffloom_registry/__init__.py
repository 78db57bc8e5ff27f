"""Names to classes: a registry of typed components that installed packages publish through entry points.

It finds, verifies, configures and builds components, and knows nothing of what they are for.
"""

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
