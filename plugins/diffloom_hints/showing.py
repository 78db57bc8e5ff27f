"""Showing: a file in, hints out: one picture each, and all of them on a contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import Tensor

import diffloom
from diffloom.data import Sample
from diffloom.errors import DataError
from diffloom_data.aligned import read_classes
from diffloom_data.images import read_image
from diffloom_data.raster import GEO, Raster, Writer, open_raster
from diffloom_hints.hint import Hint
from diffloom_hints.sheet import sheet

DRAWN = ("canny", "sobel", "soft-edges", "lines", "sketch", "blurred")
"""The hints that an image alone is enough for."""

SHEET = "sheet.png"
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_LOOKABLE = (1, 3)
_PERCENTILES = (0.02, 0.98)


@dataclass(frozen=True)
class Asked:
    """What is wanted.

    Attributes:
        image: A picture or a GeoTIFF.
        only: Names of hints; by default all that can be made of what is given.
        mask: A file of class numbers.
        roads: Class numbers that are roads.
        depth: A picture or a GeoTIFF of one band.
        bands: Bands that count, from 0; all by default, but for one that holds opacity.
        limits: Stored numbers that are black and white.
        settings: Parameters of hints, as NAME.KEY=VALUE.
    """

    image: Path
    only: Sequence[str] | None = None
    mask: Path | None = None
    roads: tuple[int, ...] = ()
    depth: Path | None = None
    bands: tuple[int, ...] = ()
    limits: tuple[float, float] | None = None
    settings: Sequence[str] = field(default=())


def show(asked: Asked, output: Path | None = None) -> list[Path]:
    """Write what the hints make of an image; nothing is written where something is wrong.

    Args:
        asked: Of what, and which.
        output: A folder, made if it is not there, or a picture's file for the contact sheet alone; by default the
            folder NAME-hints in the working directory.

    Returns:
        The files that were written, the contact sheet last.

    Raises:
        DiffloomError: A file cannot be read, or a hint cannot be made of it.
    """
    raster = open_raster(asked.image, (0.0, 1.0)) if _is_geo(asked.image) else None
    sample = _sample(asked, raster)
    made = {name: _made(hint, sample) for name, hint in _hints(asked, sample).items()}
    alone = output is not None and output.suffix.lower() in _PICTURES
    folder = output or Path(f"{asked.image.stem}-hints")
    if alone and not folder.resolve().parent.is_dir():
        raise DataError(f"the folder {folder.resolve().parent} does not exist", where=str(folder), remedy="make it")
    tiles = {"image": (sample["image"] + 1) / 2} | {
        f"{name} ({note})" if note else name: hint for name, (hint, note) in made.items()
    }
    if alone:
        sheet(tiles).save(folder)
        return [folder]
    folder.mkdir(parents=True, exist_ok=True)
    files = [_write(hint, folder / name, asked.image, raster) for name, (hint, _) in made.items()]
    sheet(tiles).save(folder / SHEET)
    return [*files, folder / SHEET]


def stretched(values: Tensor, limits: tuple[float, float] | None) -> Tensor:
    """Return stored numbers (C, H, W), NaN where there is no data, brought to [−1, 1]; no data is −1.

    Args:
        values: Of any range.
        limits: What becomes −1 and 1; by default the 2nd and the 98th percentile of each band.
    """
    shown = torch.full_like(values, -1.0)
    for band, out in zip(values, shown, strict=True):
        known = band[band.isfinite()]
        if not len(known):
            continue
        low, high = limits or (float(np.quantile(known, share)) for share in _PERCENTILES)
        if high > low:
            out.copy_(((band - low) / (high - low) * 2 - 1).nan_to_num(-1.0, 1.0, -1.0))
    return shown.clamp_(-1, 1).float()


def _is_geo(path: Path) -> bool:
    return path.suffix.lower() in GEO


def _sample(asked: Asked, raster: Raster | None) -> Sample:
    """Return the image with what else is given, its bands chosen."""
    image = read_image(asked.image, 3) if raster is None else _read(raster, asked.limits)
    missing = [band for band in asked.bands if band >= len(image)]
    if missing:
        raise DataError(
            f"there is no band {missing[0]}", where=str(asked.image), expected=f"bands from 0 to {len(image) - 1}"
        )
    sample: Sample = {"image": image[list(asked.bands)] if asked.bands else image}
    if asked.mask is not None:
        sample["mask"] = read_classes(asked.mask)
    if asked.depth is not None:
        other = open_raster(asked.depth, (0.0, 1.0)) if _is_geo(asked.depth) else None
        sample["depth"] = read_image(asked.depth, 1) if other is None else other.values(0, 0, *other.size)
    return sample


def _read(raster: Raster, limits: tuple[float, float] | None) -> Tensor:
    """Return a whole raster in [−1, 1]; a band of opacity is left out, and what it hides has no data."""
    values = raster.values(0, 0, *raster.size)
    meanings = [meaning.name for meaning in raster.profile.get("colorinterp") or ()]
    seen = [band for band, meaning in enumerate(meanings) if meaning != "alpha"]
    if 0 < len(seen) < len(values):
        hidden = (values[[band for band in range(len(values)) if band not in seen]] == 0).any(0)
        values = torch.where(hidden, torch.nan, values[seen])
    return stretched(values, limits or ((0.0, 255.0) if raster.dtype == np.uint8 else None))


def _hints(asked: Asked, sample: Sample) -> dict[str, Hint]:
    """Return the hints by name, built with the settings."""
    given: dict[str, dict[str, Any]] = {name: {} for name in DRAWN}
    if "mask" in sample:
        given["segmentation-map"] = {"classes": int(sample["mask"].max()) + 1}
        if asked.roads:
            given["road-map"] = {"classes": asked.roads}
    if "depth" in sample:
        given["depth-map"] = {}
    names = list(given) if asked.only is None else list(asked.only)
    parameters = {name: given.get(name, {}) | values for name, values in _settings(asked.settings, names).items()}
    return {name: _built(name, values) for name, values in parameters.items()}


def _built(name: str, parameters: dict[str, Any]) -> Hint:
    hint = diffloom.build("transform", name, **parameters)
    if not isinstance(hint, Hint):
        raise DataError(
            f"the transform '{name}' makes no hint", where="--only", expected="the name of a hint, such as canny"
        )
    return hint


def _settings(settings: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the parameters of each hint; DataError where a setting is no NAME.KEY=VALUE of one of them."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in settings:
        place, equals, value = text.partition("=")
        name, dot, key = place.partition(".")
        if not (equals and dot and key and name in found):
            raise DataError(
                "this sets nothing of these hints",
                where=f"--set {text}",
                expected=f"NAME.KEY=VALUE, where NAME is one of {', '.join(names)}",
            )
        try:
            found[name][key] = YAML(typ="safe", pure=True).load(value)
        except YAMLError as error:
            raise DataError("the value cannot be read", where=f"--set {text}", got=str(error)) from error
    return found


def _made(hint: Hint, sample: Sample) -> tuple[Tensor, str]:
    """Return a hint (c, H, W) in [0, 1], and what is to be said of it."""
    drawn: Tensor = hint(sample, torch.Generator().manual_seed(0))[hint.key]
    return drawn, hint.note


def _write(hint: Tensor, stem: Path, image: Path, raster: Raster | None) -> Path:
    """Write a hint as bytes, in the image's own kind of file: a GeoTIFF keeps the reference."""
    if raster is None and len(hint) not in _LOOKABLE:
        raise DataError(
            f"a picture cannot hold a hint of {len(hint)} bands",
            where=stem.name,
            expected="1 or 3",
            remedy="choose bands, or begin with a GeoTIFF",
        )
    path = stem.with_suffix(".png" if raster is None else ".tif")
    known = {} if raster is None else {key: raster.profile.get(key) for key in ("crs", "transform")}
    size = (hint.shape[-2], hint.shape[-1])
    source = Raster(image, size, len(hint), np.dtype("uint8"), (0.0, 255.0), known)
    writer = Writer(path, source, 1)
    writer.write(source.stored(hint * 2 - 1), 0, 0)
    writer.close()
    return path
