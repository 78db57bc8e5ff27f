"""The one door to diffusers: classes by name, imported when they are first asked for.

Importing this module says at once whether diffusers is installed, and imports nothing of it.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from diffloom.errors import IncompatibleParts
from diffloom.vision_compat import ensure_torchvision

if find_spec("diffusers") is None:
    raise ModuleNotFoundError(
        "diffusers is not installed; `pip install 'diffloom[diffusers]'` brings it", name="diffusers"
    )


def library() -> Any:
    """Return the module `diffusers`."""
    ensure_torchvision()  # a torchvision made for another torch would stop diffusers' models from being imported
    return import_module("diffusers")


def named(name: object, fits: Callable[[type[Any]], bool], what: str, where: str) -> type[Any]:
    """Return one of diffusers' classes.

    Args:
        name: As a config's `_class_name` says it.
        fits: Whether a class is of the kind that is asked for.
        what: That kind, in words.
        where: What an error is about.

    Raises:
        IncompatibleParts: Where diffusers has no such class, it needs a package that is missing, or it does not fit.
    """
    found = getattr(library(), name, None) if isinstance(name, str) and name.isidentifier() else None
    if not isinstance(found, type):
        raise IncompatibleParts(
            f"diffusers {library().__version__} has no class of this name",
            where=where,
            expected=f"the name of {what}",
            got=repr(name),
            remedy="correct the name, or install the version of diffusers that the folder was written with",
        )
    missing = getattr(found, "_backends", None)  # diffusers' stand-in for a class whose packages are not installed
    if missing:
        raise IncompatibleParts(f"{name} needs packages that are not installed", where=where, got=", ".join(missing))
    if not fits(found):
        raise IncompatibleParts(f"{name} is not {what}", where=where, expected=what, got=str(name))
    return found
