"""Checkpoint: a folder of safetensors and JSON, written whole or not at all, and checked by hash when read.

A checkpoint is first written beside its final place, flushed to disk and then renamed, so a process killed at any
moment leaves either the previous state or the new one. Nothing is ever pickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffloom.errors import CheckpointError

STATE = "state.json"
_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        tensors: File stem → tensors, such as `weights`, `average`, `optimizer.denoiser`.
        state: Everything that is not a tensor, JSON-able.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, beside)
    _flush(beside)
    beside.replace(path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; CheckpointError says which file and why it cannot be used."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError("there is no such file of weights", where=str(path)) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"this is no readable safetensors file: {error}",
            where=str(path),
            remedy="only safetensors is read; a file that was cut short must be made again",
        ) from error


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a safetensors file, read from its header alone."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError("there is no such file of weights", where=str(path)) from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"this is no readable safetensors file: {error}", where=str(path)) from error


def save(folder: Path, step: int, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint as `folder/step-NNNNNNNN` and remove all but the newest `keep`.

    Returns:
        The checkpoint's folder.
    """
    final = folder / f"{_PREFIX}{step:08d}"
    beside = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    files = {}
    for stem, tensors in checkpoint.tensors.items():
        path = beside / f"{stem}.safetensors"
        save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, path)
        _flush(path)
        files[path.name] = sha256(path)
    record = {"step": step, "files": files, "state": dict(checkpoint.state)}
    write_json(beside / STATE, record | {"sha256": _digest(record)})
    if final.exists():
        shutil.rmtree(final)
    beside.replace(final)
    _flush(folder)
    _tidy(folder, keep)
    return final


def load(path: Path) -> Checkpoint:
    """Return a checkpoint; CheckpointError where anything in it is missing, cut short or changed."""
    record = _record(path)
    tensors = {}
    for name, digest in record["files"].items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"the checkpoint lacks {name}", where=str(path))
        if sha256(file) != digest:
            raise CheckpointError(f"{name} is not what was written: its hash differs", where=str(path))
        tensors[file.stem] = load_tensors(file)
    return Checkpoint(tensors=tensors, state=record["state"])


def newest(folder: Path, tell: Callable[[str], None]) -> tuple[int, Checkpoint] | None:
    """Return (step, checkpoint) of the newest sound checkpoint, or `None` where there is none.

    Args:
        folder: Where checkpoints lie.
        tell: Told of every checkpoint that is passed over, and why.
    """
    for path in sorted(_all(folder), reverse=True):
        try:
            return int(path.name.removeprefix(_PREFIX)), load(path)
        except CheckpointError as error:
            tell(f"passed over a damaged checkpoint: {error}")
    return None


def latest(folder: Path) -> Path | None:
    """Return the folder of the newest checkpoint whose record is sound, without reading its tensors."""
    for path in sorted(_all(folder), reverse=True):
        try:
            _record(path)
        except CheckpointError:
            continue
        return path
    return None


def _record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        digest = record.pop("sha256")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{STATE} cannot be read: {error}", where=str(path)) from error
    if digest != _digest(record):
        raise CheckpointError(f"{STATE} is not what was written: its hash differs", where=str(path))
    return record


def _all(folder: Path) -> Iterator[Path]:
    return folder.glob(f"{_PREFIX}[0-9]*")


def _tidy(folder: Path, keep: int) -> None:
    for old in sorted(_all(folder), reverse=True)[keep:]:
        shutil.rmtree(old)
    for abandoned in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(abandoned)


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    _flush(beside)
    beside.replace(path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
