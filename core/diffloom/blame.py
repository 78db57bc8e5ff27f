"""Blame: which component an error happened in, and at which line of its code."""

import sys
from pathlib import Path

from diffloom.kinds import KINDS


def blamed(error: BaseException) -> str | None:
    """Return the innermost component in one of whose methods an error happened, as `Class (module, file:line)`.

    Args:
        error: As it was raised, with its traceback.

    Returns:
        The class, with the last line of its own module that ran; `None` where no component is to be seen.
    """
    interfaces = tuple(cls for kind in KINDS if isinstance(cls := _imported(kind.interface), type))
    found: type | None = None
    lines: dict[str, str] = {}
    trace = error.__traceback__
    while trace is not None:
        code, module = trace.tb_frame.f_code, str(trace.tb_frame.f_globals.get("__name__"))
        owner = trace.tb_frame.f_locals.get("self")
        found = type(owner) if isinstance(owner, interfaces) else found
        lines[module] = f"{Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    if found is None:
        return None
    at = lines.get(found.__module__)
    return f"{found.__name__} ({found.__module__}{f', {at}' if at else ''})"


def _imported(value: str) -> object:
    """Return what `module:Class` names, if its module was imported."""
    module, _, name = value.partition(":")
    return getattr(sys.modules.get(module), name, None)
