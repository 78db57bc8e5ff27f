"""Modality: one way in which scenes were seen, as files in a folder; and who belongs together."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from diffloom.errors import DataError
from diffloom.paths import existing_folder
from diffloom_data.images import SUFFIXES, image_size, read_image

_ARRAY = ".npy"
_OF_IMAGES = (1, 3, 4)
_LISTED = 12


class Modality(BaseModel):
    """Where one modality's files are, and how they are read.

    Image files of 8, 16 or 32 bits are first brought to 0 … 1, as `diffloom_data.images` says. Arrays (`.npy`), of
    shape (H, W) or (channels, H, W) with any number of channels, are taken as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Annotated[str, Field(description="The files' folder, relative to the data set's.")]
    channels: Annotated[int, Field(gt=0, description="1 grey, 3 colour; any number in arrays.")] = 1
    low: Annotated[float, Field(description="The value that becomes −1; smaller ones become −1 too.")] = 0.0
    high: Annotated[float, Field(description="The value that becomes 1; larger ones become 1 too.")] = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, and {self.low:g} is not below {self.high:g}")
        return self


def read(file: Path, spec: Modality) -> Tensor:
    """Return one file as float32 (channels, H, W) in [−1, 1].

    Raises:
        DataError: The file cannot be read, or does not have the channels that its modality has.
    """
    values = _array(file) if file.suffix.lower() == _ARRAY else _image(file, spec.channels)
    if values.shape[0] != spec.channels:
        raise _other_channels(file, spec.channels, values.shape[0])
    if not bool(torch.isfinite(values).all()):
        raise DataError("not all values are numbers", where=str(file), remedy="fill what is missing")
    scaled = (values - spec.low).mul_(2 / (spec.high - spec.low)).sub_(1)
    return scaled.clamp_(-1, 1).float()


def size_of(file: Path) -> tuple[int, int]:
    """Return a file's (height, width) from its header."""
    if file.suffix.lower() != _ARRAY:
        return image_size(file)
    shape = _opened(file).shape
    return int(shape[-2]), int(shape[-1])


def partners(
    root: Path, specs: Mapping[str, Modality], *, skip: bool
) -> tuple[dict[str, dict[str, Path]], dict[str, str]]:
    """Return the complete scenes, name → modality → file, and those that lack one, name → what is missing.

    Args:
        root: What the modalities' folders are relative to.
        specs: The modalities, by name.
        skip: Leave incomplete scenes out rather than refuse them.

    Raises:
        DataError: A folder is missing or empty, two files of one have the same name, or a scene is incomplete.
    """
    held = {name: _files(root / spec.folder, name) for name, spec in specs.items()}
    every = sorted({scene for files in held.values() for scene in files})
    lacking = {
        scene: "no " + " and no ".join(name for name, files in held.items() if scene not in files)
        for scene in every
        if not all(scene in files for files in held.values())
    }
    complete = {scene: {name: files[scene] for name, files in held.items()} for scene in every if scene not in lacking}
    if lacking and not (skip and complete):
        told = [f"{scene} ({what})" for scene, what in list(lacking.items())[:_LISTED]]
        more = f" and {len(lacking) - _LISTED} more" if len(lacking) > _LISTED else ""
        raise DataError(
            f"{len(lacking)} of {len(every)} scenes lack a modality",
            where=str(root),
            expected="a file of the same name in " + ", ".join(spec.folder for spec in specs.values()),
            got=", ".join(told) + more,
            remedy="add or rename the files" if skip else "add or rename the files, or set `missing: skip`",
        )
    return complete, lacking


def _files(folder: Path, modality: str) -> dict[str, Path]:
    """Return the files of a modality by their name, which is the path below the folder without the ending."""
    where = f"the modality '{modality}'"
    existing_folder(str(folder), where=where)
    found: dict[str, Path] = {}
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = Path(base) / name
            if name.startswith(".") or file.suffix.lower() not in (*SUFFIXES, _ARRAY):
                continue
            scene = file.relative_to(folder).with_suffix("").as_posix()
            if scene in found:
                raise DataError(
                    "two files have the same name",
                    where=where,
                    got=f"{found[scene].name} and {name}",
                    remedy="keep one of them",
                )
            found[scene] = file
    if not found:
        raise DataError(f"the folder {folder} holds no files of images", where=where)
    return found


def _image(file: Path, channels: int) -> Tensor:
    if channels not in _OF_IMAGES:
        raise DataError(
            f"image files have 1, 3 or 4 channels, not {channels}",
            where=str(file),
            remedy="keep more bands in arrays, `.npy` of shape (channels, H, W)",
        )
    return read_image(file, channels).double().add_(1).div_(2)


def _array(file: Path) -> Tensor:
    values = np.array(_opened(file), dtype=np.float64)
    return torch.from_numpy(values if values.ndim == 3 else values[None])


def _opened(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError("the file cannot be read as an array", where=str(file), got=str(error)) from error
    if array.ndim not in (2, 3) or array.dtype.kind not in "buif" or 0 in array.shape:
        raise DataError(
            "the array holds no image",
            where=str(file),
            expected="numbers of shape (H, W) or (channels, H, W)",
            got=f"{array.dtype} of shape {array.shape}",
        )
    return array


def _other_channels(file: Path, expected: int, got: int) -> DataError:
    return DataError(
        "the file has other channels than its modality",
        where=str(file),
        expected=str(expected),
        got=str(got),
        remedy="set the modality's `channels`",
    )
