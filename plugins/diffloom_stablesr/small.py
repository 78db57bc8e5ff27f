"""SmallImages: images as they are given to be enlarged, without their large counterparts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from diffloom.data import Dataset, Sample
from diffloom.errors import DataError
from diffloom.paths import expand
from diffloom.space import Space
from diffloom_data.images import SUFFIXES, read_image
from diffloom_data.pixels import fit

_WHERE = "the `small-images` data set"


class SmallImages(Dataset):
    """What is to be enlarged: `low_res` (channels, size, size) in [−1, 1], and an empty `caption`.

    For recipes of given weights: `diffloom run RECIPE --set data.path=FOLDER` shows each image beside its answer, and
    `diffloom sr` brings images of its own, of any size.

    Args:
        path: A file, or a folder and what is below it; without one there is a single grey image.
        size: Side to which images are scaled until they cover it, and cropped at the centre.
        scale: How many times larger answers are.
        channels: 1 grey, 3 colour.
        caption: What a text conditioner is told of every image.

    Raises:
        DataError: There is no image at the path.
    """

    keys = ("low_res", "caption")
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ({"size": 8}, {"size": 8, "channels": 1, "caption": "a harbour"})

    def __init__(
        self,
        *,
        path: str | None = None,
        size: Annotated[int, Field(gt=0)] = 128,
        scale: Annotated[int, Field(ge=1, le=32)] = 4,
        channels: Annotated[int, Field(ge=1, le=3)] = 3,
        caption: str = "",
    ) -> None:
        self.files = () if path is None else _found(expand(path, where=_WHERE))
        self.size, self.channels, self.caption = size, channels, caption
        self.space = Space(channels, (scale * size, scale * size))

    def __len__(self) -> int:
        return max(len(self.files), 1)

    def read(self, index: int) -> Sample:
        """Return image `index`."""
        if not self.files:
            return {"low_res": torch.zeros(self.channels, self.size, self.size), "caption": self.caption}
        image = read_image(self.files[index], self.channels)
        return {"low_res": fit(image, (self.size, self.size)), "caption": self.caption}


def _found(path: Path) -> tuple[Path, ...]:
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError("there is no image", where=f"{_WHERE}: path", got=str(path))
    return tuple(files)
