"""Importing what an entry names, and saying plainly why that cannot be done."""

from __future__ import annotations

import importlib
import re
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

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


def load(entry: Entry, program: str) -> object:
    """Import what an entry names, or say why that cannot be done.

    Args:
        entry: What to import.
        program: The distribution whose plugins these are.
    """
    try:
        return locate(entry.value)
    except (Exception, SystemExit) as error:
        importlib.invalidate_caches()  # so that a retry sees what was installed meanwhile
        raise entry.broken(
            "it cannot be imported",
            got=f"{type(error).__name__}: {error}",
            remedy=_remedy(entry, error, program),
        ) from error


def mentions(module: str, text: str) -> bool:
    """Tell whether a module's source has a text, without importing it; true where there is no source to read."""
    head, *rest = module.split(".")
    try:
        spec = find_spec(head)
        for end in range(len(rest)):
            if spec is None or spec.submodule_search_locations is None:
                return True
            spec = PathFinder.find_spec(".".join((head, *rest[: end + 1])), list(spec.submodule_search_locations))
        if spec is None or spec.origin is None:
            return True
        return text in Path(spec.origin).read_text(encoding="utf-8")
    except (ImportError, OSError, ValueError):
        return True


def _remedy(entry: Entry, error: BaseException, program: str) -> str:
    module = entry.value.partition(":")[0]
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == program:
        return f"it was written for another version of {program}{_asked(entry, program)}; upgrade {entry.distribution}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        if f"{module}.".startswith(f"{error.name}."):
            return f"reinstall {entry.distribution}: its entry point names a module that is not there"
        return f"install {error.name.partition('.')[0]}, or uninstall {entry.distribution}"
    return f"upgrade or uninstall {entry.distribution}, or tell its makers"


def _asked(entry: Entry, program: str) -> str:
    """Say which version of the program a distribution asks for, and which there is; empty where it says nothing."""
    try:
        wanted = metadata.requires(entry.distribution or "") or []
        there = metadata.version(program)
    except (metadata.PackageNotFoundError, ValueError):
        return ""
    own = [line.partition(";")[0].strip() for line in wanted if re.match(rf"{re.escape(program)}\b(?![-_.])", line)]
    return f" ({entry.distribution} asks for {own[0]}, and {there} is installed)" if own else ""
