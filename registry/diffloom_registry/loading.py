"""Importing what an entry names, and saying plainly why that cannot be done."""

from __future__ import annotations

import importlib

from diffloom_registry.errors import nearest
from diffloom_registry.kinds import Entry


def locate(value: str) -> object:
    """Import what ``package.module:attribute`` (or ``package.module``) names.

    Raises:
        AttributeError: If the module lacks the attribute.
    """
    module, _, attribute = value.partition(":")
    found: object = importlib.import_module(module)
    for name in attribute.split(".") if attribute else ():
        try:
            found = getattr(found, name)
        except AttributeError as error:
            near = nearest(name, dir(found))
            hint = f", only {', '.join(near)}" if near else ""
            raise AttributeError(f"{module} has no attribute {name!r}{hint}") from error
    return found


def load(entry: Entry) -> object:
    """Import what an entry names, or say why that cannot be done."""
    try:
        return locate(entry.value)
    except (Exception, SystemExit) as error:
        importlib.invalidate_caches()  # so that a retry sees what was installed meanwhile
        raise entry.broken(
            "it cannot be imported", got=f"{type(error).__name__}: {error}", remedy=_remedy(entry, error)
        ) from error


def _remedy(entry: Entry, error: BaseException) -> str:
    module = entry.value.partition(":")[0]
    if isinstance(error, ModuleNotFoundError) and error.name:
        if f"{module}.".startswith(f"{error.name}."):
            return f"reinstall {entry.distribution}: its entry point names a module that is not there"
        return f"install {error.name.partition('.')[0]}, or uninstall {entry.distribution}"
    return f"upgrade or uninstall {entry.distribution}, or tell its makers"
