"""Shift: moves an image by a few whole pixels, drawn at random; its edge goes on where it left.

Law: shape and range stay as they are; all randomness is the generator's.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom import Transform
from diffloom.data import Sample


class Shift(Transform):
    """Move an image up or down, left or right, by at most some pixels.

    Args:
        pixels: The largest move along each side.
        key: What is moved.
    """

    def __init__(self, *, pixels: Annotated[int, Field(ge=0)] = 1, key: str = "image") -> None:
        self.pixels = pixels
        self.key = key

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Return the sample with its image (C, H, W) moved."""
        image: Tensor = sample[self.key]
        down, across = torch.randint(2 * self.pixels + 1, (2,), generator=generator).tolist()
        wide = functional.pad(image[None], [self.pixels] * 4, mode="replicate")[0]
        return sample | {self.key: wide[..., down : down + image.shape[-2], across : across + image.shape[-1]]}
