"""Kept: feature maps that were computed once. A view is known by its own bytes, so any data set will do.

Law: what is kept is bit for bit what would be computed, in the type in which it is kept.
"""

import hashlib

import torch
from torch import Tensor

Maps = dict[str, Tensor]


class Kept:
    """Feature maps by the view that they are of, in memory, first come first kept.

    Args:
        limit: Most bytes to hold.

    Attributes:
        hits: How often maps were found.
        misses: How often they were not.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held: dict[str, Maps] = {}
        self.size = 0
        self.hits = self.misses = 0

    def find(self, key: str) -> Maps | None:
        """Return the maps of a view, or nothing."""
        found = self.held.get(key)
        self.hits, self.misses = self.hits + (found is not None), self.misses + (found is None)
        return found

    def keep(self, key: str, maps: Maps) -> None:
        """Keep the maps of a view, if there is room."""
        size = sum(values.numel() * values.element_size() for values in maps.values())
        if key not in self.held and self.size + size <= self.limit:
            self.held[key] = maps
            self.size += size


def view(image: Tensor) -> str:
    """Return what tells an image (C, H, W) from others: a digest of its bytes and shape."""
    digest = hashlib.blake2b(str(tuple(image.shape)).encode(), digest_size=16)
    digest.update(image.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
