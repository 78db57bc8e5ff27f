"""Samples as files: a picture for each where people can look at it, an array where they cannot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LOOKABLE = {1: "L", 3: "RGB"}


def write(outputs: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every sampled item to a file named after its seed, and `samples.json`, which says what each was asked for.

    Args:
        outputs: What `Run.sample` returned.
        folder: Made if it is not there; files of the same names are replaced.

    Returns:
        The files, `samples.json` last.
    """
    from diffloom.checkpoint import write_json

    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for place, (seed, image) in enumerate(zip(outputs["seeds"], outputs["image"], strict=True)):
        file = _item(image, folder / f"{place:05d}-seed-{seed}")
        records.append({"file": file.name, "seed": seed, "given": _given(outputs["batch"], place)})
    write_json(folder / "samples.json", {"samples": records})
    return [*(folder / str(record["file"]) for record in records), folder / "samples.json"]


def _item(image: Any, stem: Path) -> Path:
    """Write an image (C, H, W) in [−1, 1]."""
    mode = _LOOKABLE.get(len(image)) if image.dim() == 3 else None
    if mode is None:
        import numpy

        file = stem.with_name(f"{stem.name}.npy")
        numpy.save(file, image.numpy())
        return file
    from PIL import Image

    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    file = stem.with_name(f"{stem.name}.png")
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode).save(file)
    return file


def _given(batch: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return what an item was asked for, as far as that is a word or a number."""
    given = {}
    for key, values in batch.items():
        value = values[place]
        value = value.item() if getattr(value, "dim", lambda: 1)() == 0 else value
        if isinstance(value, str | int | float | bool):
            given[key] = value
    return given
