"""Samples: every set of samples as a picture, the way to it as another, and what was asked for beside them.

    samples/step-00001500.png              the images, in columns
    samples/step-00001500-trajectory.png   from noise to image, one row per item
    samples/step-00001500.json             the seeds and what was asked: enough to draw the same again

An answer under another key than `image` has a picture of its own, `step-NNNNNNNN-KEY.png`. What a paired task was
given and the true image stand on both sides of its answer in `step-NNNNNNNN-given.png`; a given image that is smaller
than the answer is shown enlarged by a bicubic filter too, which is the least that an answer has to surpass. There what
is never below 0 or above 1, as hints and masks, is shown from black to white.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffloom.engine.hooks import hook
from diffloom_report import files

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

    from diffloom.engine.run import Run

_MOST_COLUMNS = 32
_MOST_GIVEN = 8
_BESIDE = ("trajectory", "seeds", "batch")


class Samples:
    """Draws samples."""

    @hook
    def diffloom_sampled(self, run: "Run", step: int, outputs: dict[str, Any]) -> None:
        """Write the pictures, then the record that names them."""
        pictures = draw(run, outputs)
        stem = run.directory / files.SAMPLES / f"step-{step:08d}"
        names = {}
        for key, picture in pictures.items():
            names[key] = stem.name + ("" if key == "image" else f"-{key}") + ".png"
            _save(picture, stem.with_name(names[key]))
        batch = outputs.get("batch", {})
        record = {
            "step": step,
            "seeds": [int(seed) for seed in outputs.get("seeds", ())],
            "asked": {key: _plain(value) for key, value in batch.items()},
            "classes": list(run.dataset.classes) if "label" in batch else [],
            "pictures": names,
        }
        files.replace(stem.with_suffix(".json"), json.dumps(record, indent=1) + "\n")


def draw(run: "Run", outputs: Mapping[str, Any]) -> dict[str, "Image"]:
    """Return the pictures of samples by name: `image` first, `trajectory` and `given` where there are such."""
    from diffloom_report.pictures import grid, trajectory

    bands = getattr(run.dataset, "rgb_bands", None)
    batch = outputs.get("batch", {})
    answers = {key: value for key, value in outputs.items() if key not in _BESIDE and _is_images(value)}
    answers = {key: answers[key] for key in sorted(answers, key=lambda key: key != "image")}
    pictures = {}
    for key, images in answers.items():
        columns = _columns(run, len(images), batch)
        pictures[key] = grid(images, columns, _heads(run, batch, len(images), columns), bands=bands)
    if "trajectory" in outputs:
        pictures["trajectory"] = trajectory(outputs["trajectory"], bands=bands)
    images = {key: value for key, value in batch.items() if _is_images(value)}
    if images and answers:
        given = {key: value for key, value in images.items() if key not in answers}
        large = enlarged(given, next(iter(answers.values())))
        true = {f"true {key}": value for key, value in images.items() if key in answers}
        shown = {key: _signed(value) for key, value in given.items()}
        pictures["given"] = beside({**shown, **large, **answers, **true}, bands)
    return pictures


def enlarged(given: "Mapping[str, Tensor]", answer: "Tensor") -> "dict[str, Tensor]":
    """Return those of the given images that are smaller than the answer by a whole factor, in its size, bicubic."""
    from torch.nn.functional import interpolate

    found = {}
    for key, image in given.items():
        factors = {large / small for large, small in zip(answer.shape[2:], image.shape[2:], strict=True)}
        factor = factors.pop()
        if not factors and factor > 1 and factor.is_integer() and image.shape[1] == answer.shape[1]:
            large = interpolate(image.float(), answer.shape[2:], mode="bicubic").clamp(-1, 1)
            found["bicubic" if "bicubic" not in found else f"{key}, bicubic"] = large
    return found


def beside(images: Mapping[str, "Tensor"], bands: Sequence[int] | None = None) -> "Image":
    """Return sets of images in columns under their names, a row per item; small ones grow to the largest's size."""
    import numpy as np

    from diffloom_report.pictures import grid, tiled

    rows = min(_MOST_GIVEN, *(len(value) for value in images.values()))
    tiles = [_on_one_size(tiled(value[:rows], bands), _largest(images)) for value in images.values()]
    stacked = np.stack(tiles, axis=1).reshape(-1, *tiles[0].shape[1:])
    shown = stacked.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    return grid(shown, len(images), list(images))


def _signed(given: "Tensor") -> "Tensor":
    """Return what was given in [−1, 1]; maps that are never below 0, as hints and masks are not, are in [0, 1]."""
    values = given.detach().float()
    return values * 2 - 1 if float(values.min()) >= 0 and float(values.max()) <= 1 else values


def _largest(images: Mapping[str, "Tensor"]) -> tuple[int, int]:
    widths = [value.shape[3] * (2 if value.shape[1] == 2 else 1) for value in images.values()]
    return max(value.shape[2] for value in images.values()), max(widths)


def _on_one_size(tiles: Any, size: tuple[int, int]) -> Any:
    """Return tiles (N, h, w, 3) grown by a whole factor and set on black of `size`."""
    import numpy as np

    factor = max(1, min(size[0] // tiles.shape[1], size[1] // tiles.shape[2]))
    grown = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    sheet = np.zeros((len(tiles), *size, 3), dtype=np.uint8)
    sheet[:, : grown.shape[1], : grown.shape[2]] = grown
    return sheet


def _columns(run: "Run", count: int, batch: Mapping[str, Any]) -> int | None:
    """Return the recipe's number of columns, or one per class asked for, or `None`: about a square."""
    named = run.recipe.header.sample.columns
    classes = len(run.dataset.classes)
    if named is None and "label" in batch and 1 < classes <= min(count, _MOST_COLUMNS):
        return classes
    return named


def _heads(run: "Run", batch: Mapping[str, Any], count: int, columns: int | None) -> list[str] | None:
    """Return the class names of the columns, where every column is of one class."""
    classes, labels = run.dataset.classes, _plain(batch.get("label"))
    if not classes or columns is None or not isinstance(labels, list) or len(labels) != count:
        return None
    if any(label != labels[i % columns] or not 0 <= label < len(classes) for i, label in enumerate(labels)):
        return None
    return [classes[label] for label in labels[:columns]]


def _is_images(value: Any) -> bool:
    return getattr(value, "ndim", 0) == 4 and value.shape[1] > 0 and hasattr(value, "detach")


def _plain(value: Any) -> Any:
    """Return what was asked as plain data; of a large tensor only its shape."""
    if getattr(value, "ndim", 0) > 2:
        return {"shape": list(value.shape)}
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _save(picture: "Image", path: "Path") -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    files.replace(path, buffer.getvalue())
