"""Folder: image files of any size and mode, with classes or captions where there are some.

Law: the order is that of the sorted relative names, and no file that cannot be read ever goes unmentioned.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import Field
from torch import Tensor

from diffloom.data import Dataset, Sample, Transform, transformed
from diffloom.errors import DataError
from diffloom.paths import existing_folder
from diffloom.space import Space
from diffloom_data.captions import read_captions
from diffloom_data.images import SUFFIXES, image_size, read_image
from diffloom_data.pixels import fit
from diffloom_data.splits import Split, TestFraction, ValidationFraction, chosen

_logger = logging.getLogger(__name__)
_LISTED = 20
_WHERE = "the `folder` data set"


class Folder(Dataset):
    """Image files, `image` (channels, H, W) float32 in [−1, 1], with `label` or `caption` where asked for.

    How values and channels are read is said in `diffloom_data.images`, how files are divided into train and
    test in `diffloom_data.splits`. Hidden files, and files that are no images by their ending, are passed by.

    Args:
        path: The folder; `~` and environment variables are replaced, as in `$DIFFLOOM_DATA/scenes`.
        channels: 1 grey, 3 colour, 4 colour and opacity.
        size: Height and width: each image is scaled until it just covers the square, then cropped at the
            centre. Without it images keep their sizes, which must be equal, or become so by the transforms.
        labels: `folders` takes the first folder below `path` as the class, numbered in sorted order.
        captions: A `.jsonl` or `.csv` file, relative to `path`, or `*.txt` for a text file beside each image.
        name_key: Where a table has the images' names, relative to `path`, with or without their ending.
        caption_key: Where it has the captions.
        split: The part to use.
        test_fraction: Share of the files that are the test part.
        validation_fraction: Share of the validation part, for choices such as lengths; taken out of the training part.
        split_seed: Another seed, another division.
        bad: What to do about files that cannot be read: `refuse` them all in one error, or `skip` them, with
            a warning in the log and an entry in `skipped`.
        inspect: Look for bad files at the start by decoding all, by reading only their headers, or never. A
            file found bad later is refused, or replaced by the next good one, in the same way.
        transforms: Applied in order to every sample.

    Attributes:
        names: The files, relative to `path`, sorted.
        skipped: File → why it was left out; one found by a loading process is noted in that process.
    """

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, object], ...]:
        """Return a folder of images in two classes, and the same without classes in grey."""
        for number in range(4):
            file = folder / ("even", "odd")[number % 2] / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            Image.linear_gradient("L").rotate(45 * number).resize((24, 16)).convert("RGB").save(file)
        return {"path": str(folder), "size": 8, "labels": "folders"}, {"path": str(folder), "channels": 1}

    def __init__(
        self,
        *,
        path: str,
        channels: Literal[1, 3, 4] = 3,
        size: Annotated[int, Field(gt=0)] | None = None,
        labels: Literal["none", "folders"] = "none",
        captions: str | None = None,
        name_key: str = "name",
        caption_key: str = "caption",
        split: Split = "all",
        test_fraction: TestFraction = 0.1,
        validation_fraction: ValidationFraction = 0.0,
        split_seed: int = 0,
        bad: Literal["refuse", "skip"] = "refuse",
        inspect: Literal["decode", "header", "never"] = "decode",
        transforms: tuple[Transform, ...] = (),
    ) -> None:
        self.root = existing_folder(path, where=_WHERE)
        self.channels = channels
        self.size = size
        self.bad = bad
        self.transforms = transforms
        self.skipped: dict[str, str] = {}
        names = _listed(self.root)
        self.classes = _classes(self.root, names) if labels == "folders" else ()
        names = chosen(names, split, test_fraction, split_seed, validation=validation_fraction, where=str(self.root))
        self.names, sizes = self._inspected(names, inspect)
        self._captions: Sequence[str] = ()
        if captions is not None:
            self._captions = read_captions(self.root, self.names, captions, (name_key, caption_key))
        held = {"label": bool(self.classes), "caption": captions is not None}
        self.keys = ("image", *(key for key, holds in held.items() if holds))
        self.space = self._space(sizes)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Sample:
        """Return image `index`, or where it is bad and `bad` is `skip`, the next good one."""
        first = range(len(self.names))[index]
        for step in range(len(self.names)):
            place = (first + step) % len(self.names)
            name = self.names[place]
            if name in self.skipped:
                continue
            try:
                return self._sample(place, read_image(self.root / name, self.channels))
            except DataError as error:
                if self.bad == "refuse":
                    raise
                self._skip(name, error)
        raise DataError("no file can be read", where=str(self.root), remedy="look into the log for the reasons")

    def column(self, key: str) -> Iterator[Any]:
        """Yield one key of every sample; captions and labels without reading images."""
        if key == "label" and self.classes:
            return (self.classes.index(_class(name)) for name in self.names)
        return iter(self._captions) if key == "caption" and self._captions else super().column(key)

    def _sample(self, place: int, image: Tensor) -> Sample:
        sample: Sample = {"image": image if self.size is None else fit(image, (self.size, self.size))}
        if self.classes:
            sample["label"] = self.classes.index(_class(self.names[place]))
        if self._captions:
            sample["caption"] = self._captions[place]
        return sample

    def _inspected(self, names: list[str], inspect: str) -> tuple[list[str], set[tuple[int, int]]]:
        """Return the good files, and the sizes (height, width) that occur among them."""
        if inspect == "never":
            return names, {image_size(self.root / names[0])} if self.size is None else set()
        look = self._decoded_size if inspect == "decode" else self._header_size
        seen = _each(look, names)
        errors = {name: found for name, found in zip(names, seen, strict=True) if isinstance(found, DataError)}
        if errors and (self.bad == "refuse" or len(errors) == len(names)):
            raise _refusal(self.root, errors, len(names))
        for name, error in errors.items():
            self._skip(name, error)
        return [name for name in names if name not in errors], {s for s in seen if not isinstance(s, DataError)}

    def _decoded_size(self, name: str) -> tuple[int, int]:
        height, width = read_image(self.root / name, self.channels).shape[-2:]
        return height, width

    def _header_size(self, name: str) -> tuple[int, int]:
        return image_size(self.root / name)

    def _skip(self, name: str, error: DataError) -> None:
        self.skipped[name] = error.got or error.message
        _logger.warning("left out %s: %s", self.root / name, self.skipped[name])

    def _space(self, sizes: Iterable[tuple[int, int]]) -> Space:
        """Return the space of all images; DataError where they end up in different ones."""
        before = {(self.size, self.size)} if self.size is not None else set(sizes)
        after = {transformed(Space(self.channels, size), self.transforms) for size in before}
        if len(after) > 1:
            seen = sorted(before)
            raise DataError(
                "the images have different sizes",
                where=str(self.root),
                expected="one size",
                got=f"{len(seen)} sizes from {seen[0][0]}×{seen[0][1]} to {seen[-1][0]}×{seen[-1][1]}",
                remedy="set `size`, or add a `resize` or `crop` transform",
            )
        return after.pop()


def _listed(root: Path) -> list[str]:
    """Return the relative names of the image files under `root`, sorted; links are followed."""
    found, visited = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        visited.add(os.path.realpath(folder))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) not in visited
        ]
        inside = Path(folder).relative_to(root)
        found += [
            (inside / name).as_posix()
            for name in files
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    if not found:
        raise DataError(
            "the folder holds no images",
            where=str(root),
            expected=f"files that end in {', '.join(sorted(SUFFIXES))}",
            remedy="give the folder that the images are in",
        )
    return sorted(found)


def _class(name: str) -> str:
    return PurePosixPath(name).parts[0]


def _classes(root: Path, names: Iterable[str]) -> tuple[str, ...]:
    loose = [name for name in names if "/" not in name]
    if loose:
        raise DataError(
            f"{len(loose)} images are in no class's folder",
            where=str(root),
            expected="every image in a folder named after its class",
            got=", ".join(loose[:8]) + (" …" if len(loose) > 8 else ""),
            remedy="move them, or set `labels: none`",
        )
    return tuple(sorted({_class(name) for name in names}))


def _each(look: Callable[[str], tuple[int, int]], names: Sequence[str]) -> list[tuple[int, int] | DataError]:
    """Return for each file what `look` returns, or the error that it raises."""

    def found(name: str) -> tuple[int, int] | DataError:
        try:
            return look(name)
        except DataError as error:
            return error

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(found, names))


def _refusal(root: Path, errors: dict[str, DataError], count: int) -> DataError:
    """Return one error that names the bad files."""
    told = [f"{name} ({error.got})" for name, error in list(errors.items())[:_LISTED]]
    more = f" and {len(errors) - _LISTED} more" if len(errors) > _LISTED else ""
    return DataError(
        f"{len(errors)} of {count} files cannot be read as images",
        where=str(root),
        got=", ".join(told) + more,
        remedy="mend or remove them, or set `bad: skip` to go on without them",
    )
