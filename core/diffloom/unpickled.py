"""Unpickled: the tensors of an old `torch.save` file, and nothing else of it.

Reading is torch's `weights_only`, which builds tensors and plain data. Whatever else such a file names, a trainer's
callbacks for instance, is replaced by an inert stand-in: no code that the file names is ever looked up or run.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffloom.errors import CheckpointError

_KNOWN = ("state_dict", "params_ema", "params", "model")


def unpickled(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `torch.save` file, by key.

    Of a training checkpoint it is the model's: what stands under `state_dict`, `params_ema`, `params` or `model`, the
    first there is.

    Raises:
        CheckpointError: Where the file cannot be read as tensors and plain data, or has no tensors.
    """
    try:
        inert: list[Any] = [(_stand_in(name), name) for name in _strangers(path)]
        with torch.serialization.safe_globals(inert):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError("there is no such file", where=str(path)) from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "this file cannot be read as tensors and plain data: it is damaged, or it asks for code to be run",
            where=str(path),
            remedy="save its state_dict with the program that wrote it, and import that",
        ) from error
    tensors = _tensors(_model(content))
    if not tensors:
        raise CheckpointError("this file holds no tensors", where=str(path))
    return tensors


def _strangers(path: Path) -> list[str]:
    """Return the names that a file asks for beside tensors; the oldest files do not say them beforehand."""
    if not zipfile.is_zipfile(path):
        return []
    return list(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))


def _model(content: object) -> object:
    if isinstance(content, Mapping):
        for key in _KNOWN:
            if isinstance(content.get(key), Mapping):
                return content[key]
    return content


def _tensors(content: object, path: str = "") -> dict[str, Tensor]:
    """Return all tensors in nested mappings, by dotted key."""
    if isinstance(content, Tensor):
        return {path: content.detach().clone()}
    if not isinstance(content, Mapping):
        return {}
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        found.update(_tensors(value, f"{path}.{key}" if path else str(key)))
    return found


def _stand_in(name: str) -> type:
    """Return a class that takes anything and does nothing."""

    class StandIn:
        def __new__(cls, *_: object, **__: object) -> "StandIn":
            return object.__new__(cls)

        def __init__(self, *_: object, **__: object) -> None:
            """Take what the file says, and forget it."""

        def __setstate__(self, _: object) -> None:
            """Take what the file says, and forget it."""

    StandIn.__name__ = name.rpartition(".")[2]
    return StandIn
