"""PairedFolder: several views of each scene, in a folder per modality, joined by file name.

Law: `image` is all modalities of a scene joined along the channels, in the order in which they are named, and each
modality of a sample is a part of it. Windows and transforms act on `image`, so what was aligned stays aligned.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from diffloom.data import Dataset, Sample, Transform, transformed
from diffloom.errors import DataError
from diffloom.paths import existing_folder
from diffloom.space import Space
from diffloom_data.modality import Modality, partners, read, size_of
from diffloom_data.pixels import resize
from diffloom_data.splits import Split, TestFraction, ValidationFraction, chosen

_WHERE = "the `paired-folder` data set"
_RESERVED = ("image", "name")
_LISTED = 12

Place = tuple[int, int, int]
"""Number of the scene, and row and column of the window's corner."""


class PairedFolder(Dataset):
    """Scenes seen in several modalities, such as visible light and infrared, or optical bands and radar.

    A sample has `image` (all channels, H, W) float32 in [−1, 1], every modality under its own name, (channels, H, W),
    and the scene's `name`. Partners are files of the same name below their modalities' folders; endings may differ.

    Args:
        path: The folder; `~` and environment variables are replaced.
        modalities: Name → where its files are, relative to `path`, and how they are read.
        names: Only scenes whose name matches this pattern, as in `road*`.
        patch: Side of square windows, each a sample of its own: the same windows in every epoch. Without it a
            sample is a whole scene.
        stride: Pixels from one window to the next, the side by default; the last lies at the border.
        missing: What to do about a scene that lacks a modality: refuse all such in one error, or skip them.
        sizes: Partners of different size are refused, or resized to the first modality's.
        in_memory: Keep every scene once it was read.
        split: The part to use; a scene's windows stay together.
        test_fraction: Share of the scenes that are the test part.
        validation_fraction: Share of the validation part, for choices such as lengths; taken out of the training part.
        split_seed: Another seed, another division.
        transforms: Applied in order to every sample.

    Attributes:
        modalities: Name → number of channels, in order.
        names: The scenes, sorted.
        skipped: Scenes that were left out → why.
    """

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, object], ...]:
        """Return pairs in colour and grey: whole, and in windows."""
        for number in range(3):
            for part, mode in (("vis", "RGB"), ("ir", "L")):
                file = folder / part / f"{number}.png"
                file.parent.mkdir(exist_ok=True)
                Image.linear_gradient("L").rotate(30 * number).resize((24, 16)).convert(mode).save(file)
        modalities = {"visible": {"folder": "vis", "channels": 3}, "infrared": {"folder": "ir"}}
        whole: dict[str, object] = {"path": str(folder), "modalities": modalities}
        return whole, {**whole, "patch": 8, "stride": 6, "in_memory": True}

    def __init__(
        self,
        *,
        path: str,
        modalities: Annotated[Mapping[str, Modality], Field(min_length=1)],
        names: str = "*",
        patch: Annotated[int, Field(gt=0)] | None = None,
        stride: Annotated[int, Field(gt=0)] | None = None,
        missing: Literal["refuse", "skip"] = "refuse",
        sizes: Literal["refuse", "resize"] = "refuse",
        in_memory: bool = False,
        split: Split = "all",
        test_fraction: TestFraction = 0.1,
        validation_fraction: ValidationFraction = 0.0,
        split_seed: int = 0,
        transforms: tuple[Transform, ...] = (),
    ) -> None:
        self.root = existing_folder(path, where=_WHERE)
        self.specs = {name: Modality.model_validate(spec) for name, spec in modalities.items()}
        for name in _RESERVED:
            if name in self.specs:
                raise DataError(f"no modality can be called '{name}'", where=_WHERE, remedy="choose another name")
        self.modalities = {name: spec.channels for name, spec in self.specs.items()}
        self.keys = _RESERVED
        self.transforms = transforms
        self.resizes = sizes == "resize"
        self.kept: dict[int, Tensor] | None = {} if in_memory else None
        self.files, self.skipped = partners(self.root, self.specs, skip=missing == "skip")
        found = [name for name in sorted(self.files) if fnmatchcase(name, names)]
        if not found:
            raise DataError(
                "no scene has such a name",
                where=str(self.root),
                expected=f"names that match {names!r}",
                got=_some(sorted(self.files)),
            )
        self.names = chosen(
            found, split, test_fraction, split_seed, validation=validation_fraction, where=str(self.root)
        )
        seen = self._sizes()
        self.places = _windows(seen, patch, stride, self.names) if patch else [(i, 0, 0) for i in range(len(seen))]
        self.patch = patch
        self.space = self._space({(patch, patch)} if patch else set(seen))

    @property
    def holds(self) -> tuple[str, ...]:
        """What every sample holds after the transforms: its modalities, too, as they are by then."""
        return tuple(dict.fromkeys([*super().holds, *self.modalities]))

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> Sample:
        """Return the whole scene or the window, `image` and `name` alone."""
        scene, row, column = self.places[index]
        image = self._scene(scene)
        if self.patch:
            image = image[:, row : row + self.patch, column : column + self.patch]
        return {"image": image.clone(), "name": self.names[scene]}

    def get(self, index: int, *, seed: int = 0, epoch: int = 0) -> Sample:
        """Return sample `index` after the transforms, with its modalities."""
        sample = super().get(index, seed=seed, epoch=epoch)
        parts = torch.split(sample["image"], list(self.modalities.values()))
        return {**sample, **dict(zip(self.modalities, parts, strict=True))}

    def _scene(self, scene: int) -> Tensor:
        """Return all channels of a scene, (C, H, W)."""
        if self.kept is not None and scene in self.kept:
            return self.kept[scene]
        files = self.files[self.names[scene]]
        parts = [read(files[name], spec) for name, spec in self.specs.items()]
        if self.resizes:
            first = parts[0]
            parts = [first, *(resize(part, (first.shape[1], first.shape[2])) for part in parts[1:])]
        image = torch.cat(parts)
        if self.kept is not None:
            self.kept[scene] = image
        return image

    def _sizes(self) -> list[tuple[int, int]]:
        """Return each scene's (height, width); DataError naming all whose modalities differ."""
        seen, apart = [], []
        for name in self.names:
            sizes = {part: size_of(file) for part, file in self.files[name].items()}
            seen.append(next(iter(sizes.values())))
            if len(set(sizes.values())) > 1:
                told = ", ".join(f"{part} {height}×{width}" for part, (height, width) in sizes.items())
                apart.append(f"{name} ({told})")
        if apart and not self.resizes:
            raise DataError(
                f"the modalities of {len(apart)} of {len(seen)} scenes differ in size, so they are not aligned",
                where=str(self.root),
                expected="one size",
                got=_some(apart),
                remedy="align the files, or set `sizes: resize` where they show the same section",
            )
        return seen

    def _space(self, before: set[tuple[int, int]]) -> Space:
        channels = sum(self.modalities.values())
        after = {transformed(Space(channels, size), self.transforms) for size in before}
        if len(after) > 1:
            low, high = min(before), max(before)
            raise DataError(
                "the scenes have different sizes",
                where=str(self.root),
                expected="one size",
                got=f"{len(before)} sizes from {low[0]}×{low[1]} to {high[0]}×{high[1]}",
                remedy="set `patch`, choose scenes by `names`, or add a `resize` or `crop` transform",
            )
        return after.pop()


def _windows(sizes: Sequence[tuple[int, int]], patch: int, stride: int | None, names: Sequence[str]) -> list[Place]:
    """Return the windows of all scenes; DataError where a scene is smaller than one."""
    places = []
    for scene, (height, width) in enumerate(sizes):
        if min(height, width) < patch:
            raise DataError(
                "a scene is smaller than the windows",
                where=names[scene],
                expected=f"sides of at least {patch}",
                got=f"{height}×{width}",
                remedy="make `patch` smaller, or leave the scene out by `names`",
            )
        rows, columns = (_starts(side, patch, stride or patch) for side in (height, width))
        places += [(scene, row, column) for row in rows for column in columns]
    return places


def _starts(side: int, patch: int, stride: int) -> list[int]:
    """Return where windows begin so that every pixel is in one, as far as the stride allows."""
    last = side - patch
    return sorted({*range(0, last + 1, stride), last})


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
