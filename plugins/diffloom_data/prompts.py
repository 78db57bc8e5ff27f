"""Prompts: what to ask for, and no images: the data of a system whose weights are given."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from diffloom.data import Dataset, Sample
from diffloom.space import Space

Side = Annotated[int, Field(ge=1)]


class Prompts(Dataset):
    """Captions without images, for recipes that sample with given weights and train nothing.

    Args:
        captions: Taken in turn: `caption` of each sample.
        size: Of the images to be made: one side, or height and width.
        channels: Of the images to be made.
    """

    keys = ("caption",)

    def __init__(
        self,
        *,
        captions: Annotated[Sequence[str], Field(min_length=1)] = ("",),
        size: Side | tuple[Side, Side] = 64,
        channels: Annotated[int, Field(ge=1)] = 3,
    ) -> None:
        self.captions = tuple(captions)
        self.space = Space(channels, (size, size) if isinstance(size, int) else size)

    def __len__(self) -> int:
        return len(self.captions)

    def read(self, index: int) -> Sample:
        """Return caption `index`."""
        return {"caption": self.captions[index]}
