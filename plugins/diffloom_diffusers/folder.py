"""Folders in diffusers' layout: a config, weights in safetensors beside it, and pipelines that hold several of them."""

import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffloom.errors import CheckpointError, IncompatibleParts
from diffloom_diffusers.library import library, named

CONFIG = "config.json"
SCHEDULER = "scheduler_config.json"
PIPELINE = "model_index.json"


def described(folder: Path, inside: Sequence[str], file: str = CONFIG) -> tuple[Path, dict[str, Any]]:
    """Return the folder of one model or scheduler, and what its config says.

    Args:
        folder: Its folder, or that of a pipeline.
        inside: Names that it may have in a pipeline, likeliest first.
        file: The name of its config.

    Raises:
        CheckpointError: Where there is none, or it cannot be read.
    """
    folder = folder.expanduser()
    if (folder / PIPELINE).is_file() or not (folder / file).is_file():
        folder = next((folder / name for name in inside if (folder / name / file).is_file()), folder)
    path = folder / file
    if not path.is_file():
        raise CheckpointError(
            "this is no folder in diffusers' layout",
            where=str(folder),
            expected=f"{file}, or a pipeline with a folder {' or '.join(inside)}",
            got="another folder" if folder.is_dir() else "no folder",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"this is no readable JSON: {error}", where=str(path)) from error
    if not isinstance(config, dict):
        raise CheckpointError("this is no JSON object", where=str(path))
    return folder, config


def model_class(config: dict[str, Any], where: str) -> type[Any]:
    """Return the model class that a config names."""
    base = library().ModelMixin
    return named(config.get("_class_name"), lambda cls: issubclass(cls, base), "a model of diffusers", where)


def made(config: dict[str, Any], where: str) -> nn.Module:
    """Return a model as its config describes it, with new weights, on the current default device.

    Raises:
        IncompatibleParts: Where its class refuses the config.
    """
    cls = model_class(config, where)
    try:
        taken = inspect.signature(cls.__init__).parameters
        model: nn.Module = cls.from_config({key: value for key, value in config.items() if key in taken})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise IncompatibleParts(f"{cls.__name__} refuses its config: {error}", where=where) from error
    return model


def loaded(folder: Path, config: dict[str, Any], variant: str | None) -> nn.Module:
    """Return a model with the weights of its folder, in float32; shapes alone on the meta device.

    Args:
        folder: The model's folder: one safetensors file or several with an index.
        config: What its config says.
        variant: A name such as `fp16` where the folder holds several sets of weights.

    Raises:
        CheckpointError: Where the weights are missing, damaged, pickled, or not those of the config.
    """
    if torch.get_default_device().type == "meta":
        weight_files(folder, variant)
        return made(config, str(folder))
    cls = model_class(config, str(folder))
    weight_files(folder, variant)
    try:
        model, found = cls.from_pretrained(
            str(folder),
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
            torch_dtype=torch.float32,
        )
    except Exception as error:  # diffusers raises whatever its parts raise
        raise CheckpointError(f"diffusers cannot load this: {error}", where=str(folder)) from error
    odd = [f"{key} {found[key]}" for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if found[key]]
    if odd:
        raise CheckpointError(
            "the weights are not those of a model with this config",
            where=str(folder),
            got="; ".join(odd)[:400],
            remedy="fetch the folder again, or use the config that the weights came with",
        )
    return model  # type: ignore[no-any-return]  # diffusers is untyped


def weight_files(folder: Path, variant: str | None) -> tuple[Path, ...]:
    """Return the safetensors files of a model, one or several.

    Raises:
        CheckpointError: Where there are none of the variant.
    """
    middle = rf"\.{re.escape(variant)}(-\d+-of-\d+)?" if variant else ""
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    found = tuple(file for file in files if re.fullmatch(rf"[^.]+{middle}\.safetensors", file.name))
    if found:
        return found
    raise CheckpointError(
        "there are no weights in this folder",
        where=str(folder),
        expected=f"*.{variant}.safetensors" if variant else "*.safetensors",
        got=", ".join(file.name for file in files),
        remedy="pickled weights are not read: `diffloom import` turns them into safetensors",
    )
