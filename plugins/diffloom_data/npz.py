"""Npz: images in a NumPy archive, read straight from the disk where the archive is not compressed."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from diffloom.data import Dataset, Sample, Transform, transformed
from diffloom.errors import DataError
from diffloom.paths import existing_file
from diffloom.space import Space
from diffloom_data.splits import Split, TestFraction, ValidationFraction, chosen

_LOCAL_HEADER, _NAME_LENGTH, _EXTRA_LENGTH = 30, slice(26, 28), slice(28, 30)
_DIMENSIONS = {"NHW": 3, "NCHW": 4, "NHWC": 4}


class Npz(Dataset):
    """Arrays from an `.npz` file: `image` (C, H, W) float32 in [−1, 1], and `label` where asked for.

    Args:
        path: The file; `~` and environment variables are replaced.
        image: Name of the array of images.
        layout: Its dimensions: N images of height H and width W with C channels.
        low: The value that becomes −1; 0 by default where the array holds 8-bit numbers.
        high: The value that becomes 1; 255 by default where the array holds 8-bit numbers. A value outside of
            low … high is refused.
        label: Name of an array (N,) of whole numbers ≥ 0; without it samples have no label.
        classes: Names of the classes; by default the numbers themselves.
        split: The part to use.
        test_fraction: Share of the rows that are the test part.
        validation_fraction: Share of the validation part, for choices such as lengths; taken out of the training part.
        split_seed: Another seed, another division.
        transforms: Applied in order to every sample.
    """

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, str], ...]:
        """Return an archive of grey images in one layout and one of coloured ones in another."""
        levels = np.arange(6 * 3 * 8 * 8, dtype=np.uint8)
        file, label = str(folder / "images.npz"), np.arange(6) % 2
        np.savez(file, image=levels.reshape(6, 3, 8, 8), grey=levels[: 6 * 8 * 8].reshape(6, 8, 8), label=label)
        return {"path": file, "label": "label"}, {"path": file, "image": "grey", "layout": "NHW"}

    def __init__(
        self,
        *,
        path: str,
        image: str = "image",
        layout: Literal["NHW", "NCHW", "NHWC"] = "NCHW",
        low: float | None = None,
        high: float | None = None,
        label: str | None = None,
        classes: tuple[str, ...] = (),
        split: Split = "all",
        test_fraction: TestFraction = 0.1,
        validation_fraction: ValidationFraction = 0.0,
        split_seed: int = 0,
        transforms: tuple[Transform, ...] = (),
    ) -> None:
        self.path = existing_file(path, where="the `npz` data set")
        self.image = image
        self.layout = layout
        self.transforms = transforms
        self._opened: NDArray[Any] | None = None
        images = self._images()
        self.low, self.high = self._range(images, low, high)
        self._labels = None if label is None else self._read_labels(label, len(images))
        if self._labels is not None:
            self.keys = ("image", "label")
            self.classes = self._classes(classes, int(self._labels.max()) + 1)
        rows = list(range(len(images)))
        self.rows = chosen(rows, split, test_fraction, split_seed, validation=validation_fraction, where=str(self.path))
        channels, height, width = self._arranged(images[:1])[0].shape
        self.space = transformed(Space(channels, (height, width)), transforms)

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, key: str) -> Iterator[Any]:
        """Yield one key of every sample; labels without reading images."""
        if key == "label" and self._labels is not None:
            return iter(self._labels[self.rows].tolist())
        return super().column(key)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a loading process needs; it opens the file itself."""
        return self.__dict__ | {"_opened": None}

    def read(self, index: int) -> Sample:
        """Return image `index`; DataError where it has values outside of `low` … `high`."""
        row = self.rows[index]
        values = self._arranged(self._images()[row : row + 1])[0].to(torch.float64)
        least, most = (float(value) for value in torch.aminmax(values))
        if not (least >= self.low and most <= self.high):
            raise self._error(
                f"row {row} of {self.image!r} leaves the stated range",
                expected=f"values in {self.low:g} … {self.high:g}",
                got=f"{least:g} … {most:g}",
                remedy="set `low` and `high` to the array's true limits",
            )
        scaled = (values - self.low).mul_(2 / (self.high - self.low)).sub_(1).clamp_(-1, 1)
        sample: Sample = {"image": scaled.float()}
        if self._labels is not None:
            sample["label"] = int(self._labels[row])
        return sample

    def _images(self) -> NDArray[Any]:
        """Return the array of images, opened at its first use in each process."""
        if self._opened is None:
            self._opened = self._array(self.image)
            dimensions, shape = _DIMENSIONS[self.layout], self._opened.shape
            if len(shape) != dimensions or 0 in shape or self._opened.dtype.kind not in "buif":
                raise self._error(
                    f"the array {self.image!r} holds no images",
                    expected=f"numbers in {dimensions} dimensions, {self.layout}",
                    got=f"{self._opened.dtype} of shape {shape}",
                    remedy="set `image` and `layout` to what the file holds",
                )
        return self._opened

    def _array(self, name: str) -> NDArray[Any]:
        try:
            return open_array(self.path, name)
        except KeyError as error:
            held = ", ".join(map(str, error.args)) or "nothing"
            raise self._error(f"there is no array {name!r}", got=f"arrays {held}") from error
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise self._error(f"the array {name!r} cannot be read", got=str(error)) from error

    def _arranged(self, rows: NDArray[Any]) -> Tensor:
        """Return rows of the array as (N, C, H, W)."""
        values = torch.from_numpy(np.array(rows, dtype=rows.dtype.newbyteorder("=")))
        return {"NHW": values.unsqueeze(1), "NCHW": values}.get(self.layout, values.movedim(-1, 1))

    def _range(self, images: NDArray[Any], low: float | None, high: float | None) -> tuple[float, float]:
        if images.dtype == np.uint8:
            low, high = 0.0 if low is None else low, 255.0 if high is None else high
        if low is None or high is None or not low < high:
            raise self._error(
                "the values' range is not known" if low is None or high is None else "the range is empty",
                expected="`low` and `high`, the values that become −1 and 1, low < high",
                got=f"low {low}, high {high}, and an array of {images.dtype}",
                remedy="give the limits that the data can have, not those of a sample",
            )
        return low, high

    def _read_labels(self, name: str, count: int) -> NDArray[Any]:
        labels = self._array(name)
        if labels.shape != (count,) or labels.dtype.kind not in "bui" or labels.min() < 0:
            raise self._error(
                f"the array {name!r} holds no labels of the images",
                expected=f"{count} whole numbers, none below 0",
                got=f"{labels.dtype} of shape {labels.shape}",
            )
        return np.array(labels, dtype=np.int64)

    def _classes(self, names: tuple[str, ...], count: int) -> tuple[str, ...]:
        if names and len(names) < count:
            raise self._error("there are more labels than classes", expected=f"{count} names", got=str(len(names)))
        return names or tuple(map(str, range(count)))

    def _error(
        self, message: str, *, expected: str | None = None, got: str | None = None, remedy: str | None = None
    ) -> DataError:
        return DataError(message, where=str(self.path), expected=expected, got=got, remedy=remedy)


def open_array(path: Path, name: str) -> NDArray[Any]:
    """Return an array of an `.npz` file: mapped from the disk where stored plainly, else read into memory.

    Raises:
        KeyError: There is none of that name; its arguments are the names there are.
        ValueError: The file is no archive of arrays, or the array holds Python objects.
    """
    with zipfile.ZipFile(path) as archive:
        names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if name not in names:
            raise KeyError(*names)
        info = names[name]
        if info.compress_type == zipfile.ZIP_STORED:
            return _mapped(path, info.header_offset)
        with archive.open(info) as file:
            array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
            return array


def _mapped(path: Path, header: int) -> NDArray[Any]:
    """Return the array whose member of the archive begins at byte `header` (PKWARE APPNOTE 4.3.7)."""
    with path.open("rb") as file:
        file.seek(header)
        local = file.read(_LOCAL_HEADER)
        skipped = sum(int.from_bytes(local[part], "little") for part in (_NAME_LENGTH, _EXTRA_LENGTH))
        file.seek(header + _LOCAL_HEADER + skipped)
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, columns_first, dtype = read(file)
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        order: Literal["F", "C"] = "F" if columns_first else "C"
        return np.memmap(path, dtype=dtype, mode="r", offset=file.tell(), shape=shape, order=order)
