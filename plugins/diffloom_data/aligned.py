"""Aligned: folders whose files of one name show one scene: before and after, image and mask, visible and infrared.

Law: samples are the names that every folder has, sorted; all parts of a sample have one size.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from diffloom.data import Dataset, Sample, Transform, transformed
from diffloom.errors import DataError
from diffloom.paths import existing_folder
from diffloom.space import Space
from diffloom_data.captions import SIDECARS, read_captions
from diffloom_data.images import SUFFIXES, image_size, read_image
from diffloom_data.metadata import read_metadata
from diffloom_data.pixels import fit
from diffloom_data.splits import Split, TestFraction, ValidationFraction, chosen

Channels = Literal[1, 3, 4]
_WHERE = "the `aligned` data set"
_MODES = ("1", "L", "P", "I", "I;16")


class Aligned(Dataset):
    """Scenes in several folders: each key of a sample comes from a folder of its own.

    The key `image`, which must be among them, is what is learned. `mask` is read as class numbers, int64
    (1, H, W): the stored values of a grey or palette file. Every other key is an image, float32 in [−1, 1], read as
    `diffloom_data.images` says.

    Args:
        path: The folder of the folders; `~` and environment variables are replaced.
        folders: Key → folder below `path`, such as {image: post, pre: pre}.
        channels: Of the images: 1 grey, 3 colour, 4 colour and opacity; for all, or by key.
        size: Height and width: scaled until the square is just covered, then cropped at the centre.
        captions: A `.jsonl` or `.csv` file, relative to `path`: samples then have a `caption`.
        name_key: Where that has the names, with or without ending.
        caption_key: Where it has the captions.
        metadata: Item → column of that file: samples then have `metadata`, a mapping of items to numbers. The item
            `date` becomes `year`, `month` and `day`.
        split: The part to use, as `folder` divides by names.
        test_fraction: Share of the samples that are the test part.
        validation_fraction: Share of the validation part, for choices such as lengths; taken out of the training part.
        split_seed: Another seed, another division.
        transforms: Applied in order to every sample.

    Attributes:
        names: The files, relative to their folders, sorted, without ending.
    """

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, object], ...]:
        """Return pairs of an image and its mask."""
        for number in range(3):
            for part in ("image", "mask"):
                (folder / part).mkdir(exist_ok=True)
            picture = Image.linear_gradient("L").rotate(90 * number).resize((16, 12))
            picture.convert("RGB").save(folder / "image" / f"{number}.png")
            picture.point(lambda level: level // 128).save(folder / "mask" / f"{number}.png")
        parts = {"image": "image", "mask": "mask"}
        return {"path": str(folder), "folders": parts}, {"path": str(folder), "folders": parts, "size": 8}

    def __init__(
        self,
        *,
        path: str,
        folders: dict[str, str],
        channels: Channels | dict[str, Channels] = 3,
        size: Annotated[int, Field(gt=0)] | None = None,
        captions: str | None = None,
        name_key: str = "name",
        caption_key: str = "caption",
        metadata: dict[str, str] | None = None,
        split: Split = "all",
        test_fraction: TestFraction = 0.1,
        validation_fraction: ValidationFraction = 0.0,
        split_seed: int = 0,
        transforms: tuple[Transform, ...] = (),
    ) -> None:
        self.root = existing_folder(path, where=_WHERE)
        if "image" not in folders:
            raise DataError(
                "no folder is said to hold what is learned",
                where=f"{_WHERE}, folders",
                expected="a folder for 'image'",
                got=f"folders for {', '.join(folders) or 'nothing'}",
            )
        self.size, self.transforms = size, transforms
        self.channels = {key: channels.get(key, 3) if isinstance(channels, Mapping) else channels for key in folders}
        found = {key: _files(existing_folder(str(self.root / name), where=_WHERE)) for key, name in folders.items()}
        self.names = chosen(
            _common(found, self.root),
            split,
            test_fraction,
            split_seed,
            validation=validation_fraction,
            where=str(self.root),
        )
        self._files = {key: {name: files[name] for name in self.names} for key, files in found.items()}
        self._captions = (
            None if captions is None else read_captions(self.root, self.names, captions, (name_key, caption_key))
        )
        self._metadata = self._told(captions, name_key, metadata or {})
        told = {"caption": self._captions, "metadata": self._metadata}
        self.keys = (*folders, *(key for key, value in told.items() if value is not None))
        self.space = self._space()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Sample:
        """Return the parts of scene `index`; DataError where their sizes differ."""
        name = self.names[range(len(self.names))[index]]
        sample: dict[str, Any] = {key: self._part(key, files[name]) for key, files in self._files.items()}
        sizes = {key: tuple(value.shape[-2:]) for key, value in sample.items()}
        if len(set(sizes.values())) > 1:
            raise DataError(
                "the parts of a scene have different sizes",
                where=f"{self.root}, {name}",
                got=", ".join(f"{key} {size[0]}×{size[1]}" for key, size in sizes.items()),
                remedy="set `size`, or bring the files to one size",
            )
        if self._captions is not None:
            sample["caption"] = self._captions[index]
        if self._metadata is not None:
            sample["metadata"] = self._metadata[index]
        return sample

    def column(self, key: str) -> Any:
        """Yield one key of every sample; captions without reading images."""
        return iter(self._captions) if key == "caption" and self._captions is not None else super().column(key)

    def _told(self, table: str | None, name_key: str, columns: Mapping[str, str]) -> list[dict[str, float]] | None:
        if not columns:
            return None
        if table is None or table == SIDECARS:
            raise DataError(
                "metadata come from a table",
                where=f"{_WHERE}, metadata",
                expected="a .jsonl or .csv file under `captions`",
                got=str(table),
            )
        return read_metadata(self.root, self.names, table, name_key, columns)

    def _part(self, key: str, file: Path) -> Tensor:
        if key == "mask":
            value, nearest = read_classes(file), True
        else:
            value, nearest = read_image(file, self.channels[key]), False
        return value if self.size is None else fit(value, (self.size, self.size), nearest=nearest)

    def _space(self) -> Space:
        if self.size is not None:
            size = (self.size, self.size)
        else:
            sizes = {image_size(file) for file in self._files["image"].values()}
            spaces = {transformed(Space(self.channels["image"], s), self.transforms) for s in sizes}
            if len(spaces) > 1:
                raise DataError(
                    "the scenes have different sizes",
                    where=str(self.root),
                    expected="one size",
                    got=f"{len(sizes)} sizes",
                    remedy="set `size`, or add a `resize` or `crop` transform",
                )
            size = sizes.pop()
        return transformed(Space(self.channels["image"], size), self.transforms)


def read_classes(path: Path) -> Tensor:
    """Return the class numbers in a grey or palette file, int64 (1, H, W); DataError where it is none."""
    try:
        with Image.open(path) as file:
            mode = file.mode
            values = np.array(file).astype(np.int64)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError("the file cannot be read as a mask", where=str(path), got=str(error)) from error
    if mode not in _MODES:
        raise DataError(
            "a mask has one channel, whose values are class numbers",
            where=str(path),
            expected=f"a file of mode {', '.join(_MODES)}",
            got=mode,
        )
    return torch.from_numpy(values)[None]


def _files(folder: Path) -> dict[str, Path]:
    """Return the image files in a folder by their names without ending."""
    files = [file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    return {str(PurePosixPath(file.relative_to(folder).as_posix()).with_suffix("")): file for file in files}


def _common(found: Mapping[str, Mapping[str, Path]], root: Path) -> list[str]:
    """Return the names that every folder has; DataError where one lacks some, or there are none."""
    everything = set().union(*found.values())
    for key, files in found.items():
        missing = sorted(everything - files.keys())
        if missing or not files:
            raise DataError(
                f"{len(missing)} of {len(everything)} scenes have no '{key}'" if files else "there are no images",
                where=str(root),
                got=f"none for {', '.join(missing[:8])}{' …' if len(missing) > 8 else ''}" if files else f"no '{key}'",
                remedy="complete the folders, or move these scenes elsewhere",
            )
    return sorted(everything)
