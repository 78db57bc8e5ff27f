"""Components from a Python file on the command line: a plugin before it is a package."""

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

from diffloom.kinds import registry
from diffloom_registry import BrokenPlugin, Override
from diffloom_registry.loading import locate


def publish(file: Path) -> list[Override]:
    """Publish every component class that a Python file defines.

    A class is published under its attribute `name`, if it has that as text of its own, or else under the
    kebab-case of its class name; its kind is that of the interface it implements.

    Args:
        file: The file; it is executed.

    Returns:
        What undoes it, one for each component.

    Raises:
        BrokenPlugin: Where the file cannot be imported, defines no component, or one that cannot be used.
    """
    module = _imported(file)
    found: list[Override] = []
    try:
        for cls in _own(module):
            kind = _kind(cls)
            if kind is not None:
                found.append(registry.add(kind, _name(cls), cls))
    except BrokenPlugin:
        for override in found:
            override.close()
        raise
    if not found:
        raise BrokenPlugin(
            "it defines no component",
            where=str(file),
            expected=f"a class that implements one of {', '.join(_interfaces())}",
        )
    return found


def _imported(file: Path) -> ModuleType:
    name = f"diffloom_local_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}"
    spec = importlib.util.spec_from_file_location(name, file) if file.suffix == ".py" else None
    if spec is None or spec.loader is None or not file.is_file():
        raise BrokenPlugin(
            "there is no such Python file" if not file.is_file() else "it is no Python file", where=str(file)
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BrokenPlugin(
            "it cannot be imported", where=_place(file, error), got=f"{type(error).__name__}: {error}"
        ) from error
    return module


def _place(file: Path, error: BaseException) -> str:
    """Return the file with the line at which it raised, as far as it was its own."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == file.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{file}:{line}" if line else str(file)


def _own(module: ModuleType) -> list[type]:
    """Return the public classes that a module defines itself, without those that others in it complete."""
    classes = [cls for cls in vars(module).values() if isinstance(cls, type) and cls.__module__ == module.__name__]
    bases = {base for cls in classes for base in cls.__mro__[1:]}
    return [
        cls
        for cls in dict.fromkeys(classes)
        if not cls.__name__.startswith("_") and not (inspect.isabstract(cls) and cls in bases)
    ]


def _interfaces() -> dict[str, type]:
    """Return the interface of every kind."""
    return {name: cls for name, kind in registry.kinds.items() if isinstance(cls := locate(kind.interface), type)}


def _kind(cls: type) -> str | None:
    return next((kind for kind, interface in _interfaces().items() if issubclass(cls, interface)), None)


def _name(cls: type) -> str:
    given = vars(cls).get("name")
    if isinstance(given, str):
        return given
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__).lower()
