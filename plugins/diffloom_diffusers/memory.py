"""Memory: what a diffusers scheduler keeps in its attributes from call to call, as tensors under flat names.

A scheduler that was prepared and never stepped is the template. After a step everything that differs from it is
state: `name` for a tensor, `name=` for a number, `name[2]` for an entry of a list that has `name[]` entries.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffloom.errors import IncompatibleParts

_NUMBER, _LENGTH = "=", "[]"
_ENTRY = re.compile(r"(.+)\[(\d+)\](=?)$")


def fresh(template: Any) -> Any:
    """Return a scheduler that can be stepped while the template stays as it is: its lists are copied."""
    scheduler = copy.copy(template)
    for name, value in vars(template).items():
        if isinstance(value, list):
            setattr(scheduler, name, list(value))
    return scheduler


def capture(scheduler: Any, template: Any) -> dict[str, Tensor]:
    """Return what stepping changed.

    Raises:
        IncompatibleParts: Where something changed that is no tensor, number, or list of them.
    """
    before: dict[str, Any] = vars(template)
    memory: dict[str, Tensor] = {}
    for name, value in vars(scheduler).items():
        if name in before and _same(value, before[name]):
            continue
        if isinstance(value, list):
            memory[name + _LENGTH] = torch.tensor(len(value), device="cpu")
            for place, entry in enumerate(value):
                _keep(memory, f"{name}[{place}]", entry, scheduler)
        else:
            _keep(memory, name, value, scheduler)
    return memory


def restore(template: Any, memory: Mapping[str, Tensor]) -> Any:
    """Return a scheduler as it was when its memory was captured."""
    scheduler = fresh(template)
    lists = {key.removesuffix(_LENGTH): [None] * int(size) for key, size in memory.items() if key.endswith(_LENGTH)}
    for key, value in memory.items():
        entry = _ENTRY.match(key)
        if entry:
            lists[entry[1]][int(entry[2])] = value.item() if entry[3] else value  # type: ignore[call-overload]  # what they held
        elif key.endswith(_NUMBER):
            setattr(scheduler, key.removesuffix(_NUMBER), value.item())
        elif not key.endswith(_LENGTH):
            setattr(scheduler, key, value)
    for name, values in lists.items():
        setattr(scheduler, name, values)
    return scheduler


def _same(value: Any, before: Any) -> bool:
    if isinstance(value, list) and isinstance(before, list):
        return len(value) == len(before) and all(_same(*pair) for pair in zip(value, before, strict=True))
    if isinstance(value, bool | int | float) and isinstance(before, bool | int | float):
        return type(value) is type(before) and value == before
    return value is before


def _keep(memory: dict[str, Tensor], name: str, value: Any, scheduler: Any) -> None:
    if value is None:  # what is not there is nothing, in a list too
        return
    if isinstance(value, Tensor):
        memory[name] = value
    elif isinstance(value, bool | int | float):
        kind = torch.float64 if isinstance(value, float) else None
        memory[name + _NUMBER] = torch.tensor(value, dtype=kind, device="cpu")
    else:
        raise IncompatibleParts(
            f"{type(scheduler).__name__} keeps what no tensor can hold",
            where=f"sampler: its attribute {name}",
            expected="tensors, numbers, and lists of them",
            got=type(value).__name__,
            remedy="choose another scheduler",
        )
