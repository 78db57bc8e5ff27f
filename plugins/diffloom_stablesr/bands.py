"""Bands: an image of more or fewer bands than a network sees goes through it in groups, as several images at once.

A network of three bands sees bands 1 2 3, then 4 5 6, and so on, the last group ending with the last band; of two bands
the second is repeated, of one band it is. What a group says of a band that an earlier one has is not taken.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def groups(bands: Sequence[int], width: int) -> list[tuple[int, ...]]:
    """Return groups of `width` bands in which every band is.

    Args:
        bands: Which there are, one or more.
        width: How many the network sees.
    """
    if len(bands) < width:
        return [(*bands, *[bands[-1]] * (width - len(bands)))]
    starts = [*range(0, len(bands) - width, width), len(bands) - width]
    return [tuple(bands[start : start + width]) for start in starts]


def cut(image: Tensor, grouped: Sequence[Sequence[int]]) -> Tensor:
    """Return the groups of an image (bands, H, W) as a batch, (groups, width, H, W)."""
    return torch.stack([image[list(group)] for group in grouped])


def joined(answers: Tensor, grouped: Sequence[Sequence[int]], bands: int) -> Tensor:
    """Return an image (bands, H, W) from answers (groups, width, H, W); bands in no group are 0."""
    whole = answers.new_zeros(bands, *answers.shape[2:])
    for answer, group in reversed(list(zip(answers, grouped, strict=True))):
        for made, band in reversed(list(zip(answer, group, strict=True))):
            whole[band] = made
    return whole
