"""Whether a class fits the interface that it is published for: base class, abstract methods, final ones, signatures.

The last two tell a component that was written for another version of its interface, before anything calls it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from diffloom_registry.errors import article, listed
from diffloom_registry.kinds import Entry

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def fit(entry: Entry, cls: object, interface: type, kinds: Mapping[type, str]) -> type:
    """Return the class that an entry names, if it fits.

    Args:
        entry: Where it is published, for errors.
        cls: What was found there.
        interface: What it has to implement.
        kinds: All interfaces, with the names of their kinds.

    Raises:
        BrokenPlugin: If it does not fit.
    """
    if not isinstance(cls, type):
        raise entry.broken(
            "it is no class",
            expected=f"a subclass of {interface.__name__}",
            got=type(cls).__name__,
            remedy=f"let its entry point name a class; tell the makers of {entry.source}",
        )
    if not issubclass(cls, interface):
        bases = ", ".join(base.__name__ for base in cls.__bases__)
        other = next((kind for base, kind in kinds.items() if issubclass(cls, base)), None)
        raise entry.broken(
            "it has the wrong base class",
            expected=f"a subclass of {interface.__module__}:{interface.__name__}",
            got=f"{cls.__name__}({bases})",
            remedy=f"publish it as {article(other)}" if other else f"derive it from {interface.__name__}",
        )
    left = sorted(getattr(cls, "__abstractmethods__", ()))
    if left:
        raise entry.broken("abstract methods are left", got=listed(left), remedy="implement them")
    _finals(entry, cls, interface)
    _signatures(entry, cls, interface)
    return cls


def _finals(entry: Entry, cls: type, interface: type) -> None:
    """Refuse a class that replaces what its interface marks as final."""
    for base in interface.__mro__:
        for name, value in vars(base).items():
            marked = getattr(value, "fget", value)
            if getattr(marked, "__final__", False) and inspect.getattr_static(cls, name, value) is not value:
                raise entry.broken(
                    f"it replaces {name!r}, which is final in {base.__name__}",
                    remedy=f"leave {name!r} to the interface; it may have been written for another version of it",
                )


def _signatures(entry: Entry, cls: type, interface: type) -> None:
    """Refuse a class one of whose methods cannot be called as its interface says."""
    for name in sorted(getattr(interface, "__abstractmethods__", ())):
        wanted, given = vars(interface).get(name), inspect.getattr_static(cls, name)
        if not (inspect.isfunction(wanted) and inspect.isfunction(given)):
            continue
        parameters = inspect.signature(wanted).parameters.values()
        positional = [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL]
        by_name = {parameter.name: None for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
        try:
            inspect.signature(given).bind(*positional, **by_name)
        except TypeError as error:
            raise entry.broken(
                f"its {name!r} cannot be called as {interface.__name__} says",
                expected=f"{name}{_shown(wanted)}",
                got=f"{name}{_shown(given)}",
                remedy=f"write it for this version of {interface.__name__}, or upgrade {entry.distribution or 'it'}",
            ) from error


def _shown(function: object) -> str:
    """Write a method's parameters without annotations and without ``self``."""
    signature = inspect.signature(function)  # type: ignore[arg-type]  # a function
    parameters = list(signature.parameters.values())[1:]
    bare = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))
