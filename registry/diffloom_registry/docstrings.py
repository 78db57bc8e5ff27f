"""Reading Google-style docstrings: the summary of a class and the descriptions of its arguments."""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(r"^(\w[\w ]*):\s*$")
_ARGUMENT = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def summary(cls: type) -> str:
    """Return the first paragraph of the class's own docstring on one line."""
    text = inspect.cleandoc(vars(cls).get("__doc__") or "")
    return " ".join(text.split("\n\n", 1)[0].split())


def arguments(text: str | None) -> dict[str, str]:
    """Return name -> description of what the ``Args:`` section lists."""
    found: dict[str, str] = {}
    inside, margin, current = False, 0, ""
    for line in inspect.cleandoc(text or "").splitlines():
        indent = len(line) - len(line.lstrip())
        if indent == 0 and line:
            section = _SECTION.match(line)
            inside, margin = bool(section and section[1] in {"Args", "Arguments"}), 0
        elif inside and line.strip():
            margin = margin or indent
            match = _ARGUMENT.match(line.strip()) if indent == margin else None
            if match:
                current = match[1]
                found[current] = match[2]
            elif current:
                found[current] = f"{found[current]} {line.strip()}".strip()
    return found


def described(cls: type, definer: type) -> dict[str, str]:
    """Return name -> description for a constructor's parameters.

    Args:
        cls: The class; its own docstrings win over those it inherits.
        definer: The class of its method resolution order that defines ``__init__``.
    """
    order = cls.__mro__[: cls.__mro__.index(definer) + 1]
    found: dict[str, str] = {}
    for base in reversed(order):
        found |= arguments(vars(base).get("__doc__"))
        found |= arguments(getattr(vars(base).get("__init__"), "__doc__", None))
    return found
