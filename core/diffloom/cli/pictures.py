"""Samples as files: a picture for each where people can look at it, an array where they cannot; and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FLAT = 2
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


def read(file: str, like: Any, *, mask: bool, where: str) -> Any:
    """Return the picture in a file, scaled until it covers the size of another, and cropped at the centre.

    Args:
        file: A picture of 8 bits.
        like: (C, H, W), in whose size, channels and type it comes: whole numbers as they are stored.
        mask: Whether real values are 0 … 1, instead of −1 … 1.
        where: What an error is about.

    Raises:
        DataError: The file cannot be read as a picture.
    """
    import numpy
    import torch
    from PIL import Image, ImageOps

    from diffloom.errors import DataError

    modes = {**_LOOKABLE, 4: "RGBA"}
    channels, height, width = like.shape
    if channels not in modes:
        raise DataError(
            "the data's pictures cannot come from such a file",
            where=where,
            expected="pictures of 1, 3 or 4 channels",
            got=f"{channels} channels",
            remedy="give them by a data set, with --data",
        )
    whole = not like.is_floating_point()
    try:
        with Image.open(Path(file).expanduser()) as opened:
            picture = opened if whole and opened.mode == "P" else opened.convert(modes[channels])
            method = Image.Resampling.NEAREST if whole or mask else Image.Resampling.BICUBIC
            fitted = ImageOps.fit(picture, (width, height), method)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError("the file cannot be read as a picture", where=where, got=str(error)) from error
    values = torch.from_numpy(numpy.array(fitted))
    values = values[None] if values.dim() == _FLAT else values.permute(2, 0, 1)
    if whole:
        return values.to(like.dtype)
    return (values / 255 if mask else values / 127.5 - 1).to(like.dtype)


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
