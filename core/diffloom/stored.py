"""Stored: weights as they lie on disk, in one safetensors file or in the shards of a folder.

Only headers are read until tensors are asked for. Pickles are refused: reading one can run code.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from diffloom import checkpoint
from diffloom.errors import CheckpointError

INDEX = ".safetensors.index.json"
PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
PIPELINE = "model_index.json"
HALVES = ("encoder", "decoder")
"""Files NAME_encoder and NAME_decoder of one folder are one autoencoder, as TAESD's: keys begin with their half."""


@dataclass(frozen=True)
class Stored:
    """Tensors on disk, by name.

    Attributes:
        path: The file or folder that was asked for.
        files: Tensor's key → the file that holds it.
        shapes: Tensor's key → its shape.
        prefixes: File → what its tensors' keys begin with here, beside what stands in the file.
    """

    path: Path
    files: Mapping[str, Path]
    shapes: Mapping[str, tuple[int, ...]]
    prefixes: Mapping[Path, str] = field(default_factory=dict)

    def read(self) -> dict[str, Tensor]:
        """Return the tensors."""
        tensors: dict[str, Tensor] = {}
        for file in dict.fromkeys(self.files.values()):
            found, prefix = checkpoint.load_tensors(file), self.prefixes.get(file, "")
            tensors.update({key: found[key.removeprefix(prefix)] for key, home in self.files.items() if home == file})
        return tensors

    def sha256(self) -> str:
        """Return the SHA-256 of the file, or of the shards' hashes one after the other."""
        return digest(dict.fromkeys(self.files.values()))

    def config(self) -> dict[str, Any]:
        """Return what config.json beside the weights says; nothing where there is none."""
        file = (self.path if self.path.is_dir() else self.path.parent) / "config.json"
        return read_json(file) if file.is_file() else {}


def digest(files: Iterable[Path]) -> str:
    """Return the SHA-256 of one file, or of several files' hashes one after the other."""
    hashes = [checkpoint.sha256(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def stored(path: Path) -> Stored:
    """Return the weights in a file or folder.

    Args:
        path: A safetensors file, or a folder with one, with an index of shards, or with the `HALVES`.

    Raises:
        CheckpointError: Where there are none, several that exclude each other, or a pickle.
    """
    path = path.expanduser()
    if path.is_file() or not path.is_dir():
        _refuse_pickle(path)
        files = [path]
    else:
        files = _files(path)
    homes: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    prefixes = {file: f"{half}." for file, half in zip(files, HALVES, strict=True)} if _are_halves(files) else {}
    for file in files:
        found = {prefixes.get(file, "") + key: shape for key, shape in checkpoint.shapes(file).items()}
        homes.update(dict.fromkeys(found, file))
        shapes.update(found)
    return Stored(path, homes, shapes, prefixes)


def _files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder that belong together."""
    indices = sorted(folder.glob(f"*{INDEX}"))
    plain = [index for index in indices if _is_plain(index.name.removesuffix(INDEX))]
    if indices:
        if len(plain or indices) > 1:
            raise _several(folder, plain or indices)
        return _shards((plain or indices)[0])
    files = sorted(folder.glob("*.safetensors"))
    plain = [file for file in files if _is_plain(file.stem)]
    if _are_halves(plain[::-1]):
        return plain[::-1]
    if len(plain or files) > 1:
        raise _several(folder, plain or files)
    if files:
        return [(plain or files)[0]]
    if (folder / PIPELINE).is_file():
        inside = sorted(child.name for child in folder.iterdir() if child.is_dir())
        raise CheckpointError(
            "this folder holds a whole pipeline, not one model",
            where=str(folder),
            expected=f"one of its folders {', '.join(inside)}",
            remedy="name that folder, or run `diffloom import` on the whole",
        )
    for file in sorted(folder.iterdir()):
        _refuse_pickle(file)
    raise CheckpointError("there are no weights in this folder", where=str(folder), expected="a safetensors file")


def _shards(index: Path) -> list[Path]:
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    if not names:
        raise CheckpointError("this index of shards names no file", where=str(index))
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(names)} shards are missing",
            where=str(index),
            got=f"no {missing[0]}",
            remedy="fetch the whole folder again",
        )
    return [index.parent / name for name in names]


def _are_halves(files: Sequence[Path]) -> bool:
    """Return whether files are the encoder and the decoder of one autoencoder, in this order."""
    names = [file.stem.rpartition("_") for file in files]
    return [half for _, _, half in names] == list(HALVES) and len({name for name, _, _ in names}) == 1


def _is_plain(stem: str) -> bool:
    """Return whether a file's stem names no variant, as `model.fp16` does."""
    return "." not in stem


def _several(folder: Path, files: Iterable[Path]) -> CheckpointError:
    return CheckpointError(
        "several files could be meant",
        where=str(folder),
        got=", ".join(file.name for file in files),
        remedy="name the file",
    )


def _refuse_pickle(path: Path) -> None:
    if path.suffix in PICKLES:
        raise CheckpointError(
            "this is a pickle, which can run code when it is read",
            where=str(path),
            expected="a safetensors file",
            remedy=f"`diffloom import {path} --out DIR` reads its tensors, never code, and writes safetensors",
        )


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; CheckpointError where it cannot be read or holds something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"this is no readable JSON: {error}", where=str(file)) from error
    if not isinstance(found, dict):
        raise CheckpointError("this is no JSON object", where=str(file))
    return found
