"""Memory that inference on a CPU uses again: fresh pages would cost as much as many a product.

What a layer puts there it has used up before it returns, so that all layers share few buffers: attention lays its
tokens where convolutions lay their filters and tiles.
"""

import threading
from math import prod

import torch
from torch import Tensor


class _Buffers(threading.local):
    """Memory of this thread, by purpose."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}


_buffers = _Buffers()


def buffer(purpose: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uninitialised memory; what was in the last buffer of the same purpose is overwritten."""
    size, kept = -(-prod(shape) * dtype.itemsize // 4), _buffers.kept.get(purpose)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(False):
            kept = torch.empty(size, dtype=torch.float32, device="cpu")  # whatever the defaults are
            _buffers.kept[purpose] = kept
    return kept[:size].view(dtype)[: prod(shape)].view(shape)
