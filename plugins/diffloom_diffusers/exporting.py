"""Exporting: a system of diffloom as folders that diffusers loads, with equal outputs.

Each part says itself how diffusers stores it (`layouts()`); here its tensors and its config are written, after
diffusers has agreed that they fit each other. The schedule becomes a scheduler with the same table.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffloom.autoencoder import Autoencoder
from diffloom.errors import CheckpointError, IncompatibleParts
from diffloom.layout import Layout, layouts_of
from diffloom.system import System
from diffloom_diffusers.denoiser import DiffusersDenoiser
from diffloom_diffusers.folder import CONFIG, PIPELINE, SCHEDULER, made
from diffloom_diffusers.library import library
from diffloom_diffusers.tables import scheduler_config

WEIGHTS = "diffusion_pytorch_model.safetensors"
_SCALING = {"scaling_factor", "shift_factor", "latents_mean", "latents_std"}
_OURS = "diffusers"  # how a layout of diffusers is called


@dataclass
class Exported:
    """What an export wrote.

    Attributes:
        folder: Where.
        classes: Folder inside → the class that loads it.
        notes: What diffusers cannot say, each with what to do.
    """

    folder: Path
    classes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def export(system: System, folder: Path | str) -> Exported:
    """Write a system's denoiser, autoencoder and schedule in diffusers' layout.

    Args:
        system: What to write, with the weights that it has.
        folder: A new or empty folder: it gets `unet` or `transformer`, `vae` unless images are diffused themselves,
            `scheduler`, a folder for each conditioner that is a model of diffusers (`controlnet`, or `controlnet-NAME`
            where there are several), and model_index.json where a pipeline of diffusers takes just these parts.

    Raises:
        IncompatibleParts: diffusers cannot express a part; nothing is written then.
        CheckpointError: The folder holds something.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError("this folder is not empty", where=str(folder), remedy="name a new one")
    done = Exported(folder)
    parts = _parts(system, done)
    scheduler = scheduler_config(system)
    done.classes["scheduler"] = scheduler["_class_name"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, (config, tensors) in parts.items():
        (partial / name).mkdir(parents=True)
        _write(partial / name / CONFIG, config)
        save_file(tensors, partial / name / WEIGHTS, metadata={"format": "pt"})
    (partial / "scheduler").mkdir(parents=True)
    _write(partial / "scheduler" / SCHEDULER, scheduler)
    _pipeline(system, done, partial)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return done


Part = tuple[dict[str, Any], dict[str, Tensor]]


def _parts(system: System, done: Exported) -> dict[str, Part]:
    """Return config and tensors of each folder."""
    layout = _layout(system.denoiser, "denoiser")
    config, tensors = dict(layout.config), layout.write(_state(system.denoiser))
    beside = _beside(system)
    for name, conditioner in system.conditioners.items():
        if not conditioner.state_dict() or name in {owner for owner, _ in beside.values()}:
            continue  # it holds nothing that could be stored, or is stored in its own folder
        told = _told(conditioner)
        if told is None or "class_embed_type" in config or not str(config["_class_name"]).startswith("UNet"):
            done.notes.append(f"conditioners.{name} is not written: diffusers' networks do not hold what it does")
        else:
            config |= told.config
            tensors |= told.write(_state(conditioner))
    place = "transformer" if "Transformer" in config["_class_name"] else "unet"
    parts = {place: _agreed(config, tensors, "denoiser")}
    for folder, (name, stored) in beside.items():
        written = stored.write(_state(system.conditioners[name]))
        parts[folder] = _agreed(dict(stored.config), written, f"conditioners.{name}")
    autoencoder = system.autoencoder
    if autoencoder.state_dict() or not autoencoder.bounded:
        layout = _layout(autoencoder, "autoencoder")
        own = {key: value for key, value in layout.config.items() if key not in _SCALING} | _scaling(autoencoder)
        parts["vae"] = _agreed(own, layout.write(_state(autoencoder)), "autoencoder")
    done.classes |= {name: part[0]["_class_name"] for name, part in parts.items()}
    if system.schedule.path == "flow" and not isinstance(system.denoiser, DiffusersDenoiser):
        done.notes.append(
            "diffusers asks flow networks at the time 1000 σ, and this one learned the index of the level: give "
            "set_timesteps both sigmas and timesteps, timesteps being T σ' − 1 with σ' the sigma before the shift"
        )
    return parts


def _layout(part: nn.Module, role: str) -> Layout:
    """Return the part's layout in diffusers.

    Raises:
        IncompatibleParts: Where it has none.
    """
    for layout in layouts_of(part):
        if layout.name == _OURS and "_class_name" in layout.config:
            return layout
    raise IncompatibleParts(
        f"no model of diffusers is the same as this {type(part).__name__}",
        where=role,
        expected="a configuration that diffusers has too",
        got=f"layouts {', '.join(layout.name for layout in layouts_of(part)) or 'none'}",
        remedy="export needs a part, and parameters, whose layouts() name diffusers",
    )


def _beside(system: System) -> dict[str, tuple[str, Layout]]:
    """Return the conditioners that are models of diffusers themselves: folder → its name and layout."""
    found = {}
    for name, conditioner in system.conditioners.items():
        whole = (own for own in layouts_of(conditioner) if own.name == _OURS and "_class_name" in own.config)
        if (layout := next(whole, None)) is not None:
            found[name] = layout
    kinds = Counter(_kind(layout) for layout in found.values())
    return {
        _kind(layout) if kinds[_kind(layout)] == 1 else f"{_kind(layout)}-{name}": (name, layout)
        for name, layout in found.items()
    }


def _kind(layout: Layout) -> str:
    return str(layout.config["_class_name"]).removesuffix("Model").lower()


def _told(conditioner: nn.Module) -> Layout | None:
    """Return the layout of a conditioner whose weights are the network's own in diffusers."""
    own = (layout for layout in layouts_of(conditioner) if layout.name == _OURS and "_class_name" not in layout.config)
    return next(own, None)


def _scaling(autoencoder: Autoencoder) -> dict[str, Any]:
    """Return what a config says of the latents' scale: one number, or one for each channel."""
    scale, shift = torch.as_tensor(autoencoder.scale).flatten(), torch.as_tensor(autoencoder.shift).flatten()
    if bool((scale == scale[0]).all() and (shift == shift[0]).all()):
        return {"scaling_factor": float(scale[0])} | ({"shift_factor": float(shift[0])} if shift.any() else {})
    return {"scaling_factor": 1.0, "latents_mean": shift.tolist(), "latents_std": (1 / scale).tolist()}


def _state(part: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in part.state_dict().items()}


def _agreed(config: dict[str, Any], tensors: dict[str, Tensor], role: str) -> Part:
    """Return config and tensors, once diffusers makes a network of the one that has the shapes of the other.

    Raises:
        IncompatibleParts: Where it does not.
    """
    with torch.device("meta"):
        network = made(config, role)
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    odd = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if odd:
        raise IncompatibleParts(
            f"{len(odd)} tensors do not fit diffusers' {config['_class_name']}",
            where=role,
            expected=f"{odd[0]} {wanted.get(odd[0], 'not there')}",
            got=str(found.get(odd[0], "not there")),
            remedy="the layout of this part is wrong, or for another version of diffusers",
        )
    return {**config, "_diffusers_version": library().__version__}, tensors


def _pipeline(system: System, done: Exported, folder: Path) -> None:
    """Write model_index.json where diffusers has a pipeline of just these parts."""
    alone = not (system.conditioners or system.denoiser.ports.concat)
    if alone and done.classes == {"unet": "UNet2DModel", "scheduler": "DDPMScheduler"}:
        named = {name: [_OURS, cls] for name, cls in done.classes.items()}
        index = {"_class_name": "DDPMPipeline", "_diffusers_version": library().__version__, **named}
        _write(folder / PIPELINE, index)
        return
    done.notes.append("no pipeline of diffusers takes just these parts: load each folder with the class named in it")


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
