"""Union: several data sets as one.

Law: the samples are those of the parts, one part after the other, each as its part gives it; and a part never changes
what another gives.
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from diffloom.data import Dataset, Sample, Transform, transformed
from diffloom.errors import DataError
from diffloom.noise import mix
from diffloom.space import Space

_WHERE = "the `union` data set"


class Union(Dataset):
    """Samples of several data sets, with the keys that all of them have.

    Classes are numbered one part after the other and called `part/class`, so no two parts' labels are mixed up. Where a
    part has no classes, no sample has a `label`.

    Args:
        parts: Name → data set, with its own split and its own transforms.
        repeats: Name → how many times an epoch shows each sample of that part, once where it is not named, every time
            with other draws of the random transforms. With 0 a part is left out, but its classes keep their numbers: so
            held-out data can be those of one part.
        transforms: Applied in order to every sample, after those of its part.
    """

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, object], ...]:
        """Return two folders of images, the second twice; and with the first left out."""
        for part in ("near", "far"):
            for number in range(3):
                file = folder / part / ("even", "odd")[number % 2] / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.linear_gradient("L").rotate(45 * number).resize((16, 16)).save(file)
        parts = {name: {"type": "folder", "path": str(folder / name), "labels": "folders"} for name in ("near", "far")}
        return {"parts": parts, "repeats": {"far": 2}}, {"parts": parts, "repeats": {"near": 0}}

    def __init__(
        self,
        *,
        parts: dict[str, Dataset],
        repeats: dict[str, Annotated[int, Field(ge=0)]] | None = None,
        transforms: tuple[Transform, ...] = (),
    ) -> None:
        self.parts, self.transforms = parts, transforms
        self.repeats = {name: (repeats or {}).get(name, 1) for name in parts}
        shown = {name: part for name, part in parts.items() if self.repeats[name]}
        _require(parts, repeats or {}, shown)
        common = set.intersection(*(set(part.holds) for part in parts.values()))
        self.keys = tuple(key for key in next(iter(parts.values())).holds if key in common)
        self.classes: tuple[str, ...] = ()
        self._first_class = dict.fromkeys(parts, 0)
        if "label" in self.keys:
            counts = [len(part.classes) for part in parts.values()]
            self._first_class = dict(zip(parts, accumulate(counts, initial=0), strict=False))
            self.classes = tuple(f"{name}/{each}" for name, part in parts.items() for each in part.classes)
        self.space = transformed(_space(shown), transforms)
        self._ends = dict(zip(shown, accumulate(self.repeats[n] * len(p) for n, p in shown.items()), strict=True))

    def __len__(self) -> int:
        return max(self._ends.values())

    def column(self, key: str) -> Iterator[Any]:
        """Yield one key of every sample, as the parts yield it."""
        for name in self._ends:
            first = self._first_class[name] if key == "label" else None
            for _ in range(self.repeats[name]):
                values = self.parts[name].column(key)
                yield from values if first is None else (first + value for value in values)

    def read(self, index: int) -> Sample:
        """Return sample `index` before any transform, with the common keys that it holds by then."""
        name, _, place = self._place(index)
        return self._common(name, self.parts[name].read(place))

    def get(self, index: int, *, seed: int = 0, epoch: int = 0) -> Sample:
        """Return sample `index` after its part's transforms and after those of the union."""
        name, time, place = self._place(index)
        sample = self.parts[name].get(place, seed=mix("union", seed, name, time), epoch=epoch)
        return self.changed(self._common(name, sample), index, seed=seed, epoch=epoch)

    def _place(self, index: int) -> tuple[str, int, int]:
        """Return the part that a sample is of, the how many-th time it is shown, and its number there."""
        index, start = range(len(self))[index], 0
        for name, end in self._ends.items():
            if index < end:
                return name, *divmod(index - start, len(self.parts[name]))
            start = end
        raise IndexError(index)

    def _common(self, name: str, sample: Sample) -> Sample:
        kept = {key: sample[key] for key in self.keys if key in sample}
        return kept | {"label": kept["label"] + self._first_class[name]} if "label" in kept else kept


def _require(parts: Mapping[str, Dataset], repeats: Mapping[str, int], shown: Mapping[str, Dataset]) -> None:
    unknown = [name for name in repeats if name not in parts]
    if unknown:
        raise DataError(
            f"there is no part '{unknown[0]}' to repeat",
            where=f"{_WHERE}, repeats",
            expected=f"names among {', '.join(parts)}",
            got=", ".join(unknown),
        )
    if not shown:
        raise DataError(
            "it has no samples",
            where=_WHERE,
            expected="a part that is shown once or more",
            got=f"{', '.join(parts)}, all repeated 0 times" if parts else "no parts",
        )


def _space(shown: Mapping[str, Dataset]) -> Space:
    """Return the space that all parts share; DataError where they differ."""
    spaces = {name: part.space for name, part in shown.items()}
    if len(set(spaces.values())) > 1:
        raise DataError(
            "the parts have images of different sizes or bands",
            where=_WHERE,
            expected="one size and as many bands in all",
            got=", ".join(f"{name} {'×'.join(map(str, space.shape))}" for name, space in spaces.items()),
            remedy="set `size` or `channels` of a part, or give it a `crop` or `resize` transform",
        )
    return next(iter(spaces.values()))
