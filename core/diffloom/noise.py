"""Noise: every item of a batch has its own random stream, so an image depends on its seed and on nothing else.

Draws are a pure function of (seed, key): there is no generator state to carry, save or restore. The numbers are drawn
on the CPU and moved, so they are equal on every device.
"""

import hashlib
from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor

_MASK = (1 << 63) - 1


def mix(*parts: Hashable) -> int:
    """Return a 63-bit integer that depends on all `parts` (integers and strings), well mixed."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") & _MASK


class Noise:
    """A stream of random tensors for each item of a batch.

    Args:
        seeds: One integer per item.
        scope: Names the purpose, so that draws for different purposes never meet.
    """

    def __init__(self, seeds: Iterable[int], *, scope: Sequence[Hashable] = ()) -> None:
        self.seeds = tuple(int(seed) for seed in seeds)
        self.scope = tuple(scope)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: slice) -> "Noise":
        return Noise(self.seeds[index], scope=self.scope)

    def within(self, *names: Hashable) -> "Noise":
        """Return a noise whose draws are independent of this one's: same seeds, a narrower scope."""
        return Noise(self.seeds, scope=(*self.scope, *names))

    def generators(self, *key: Hashable) -> list[torch.Generator]:
        """Return a fresh CPU generator per item for this key."""
        return [torch.Generator().manual_seed(mix(seed, *self.scope, *key)) for seed in self.seeds]

    def normal(self, like: Tensor, *key: Hashable) -> Tensor:
        """Return standard normal draws with the shape, type and device of `like`, (B, …), B = len(self).

        Drawn in float32, or float64 where `like` is; equal calls give equal numbers.
        """
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        rows = [torch.randn(like.shape[1:], generator=g, dtype=dtype) for g in self._for(like, key)]
        return torch.stack(rows).to(like.device, like.dtype, non_blocking=True)

    def uniform(self, like: Tensor, *key: Hashable) -> Tensor:
        """Return draws from [0, 1) with the shape, type and device of `like`, (B, …)."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        rows = [torch.rand(like.shape[1:], generator=g, dtype=dtype) for g in self._for(like, key)]
        return torch.stack(rows).to(like.device, like.dtype, non_blocking=True)

    def integers(self, high: int, device: torch.device | str, *key: Hashable) -> Tensor:
        """Return one integer in [0, high) per item, int64 (B,)."""
        rows = [torch.randint(high, (), generator=g) for g in self.generators(*key)]
        return torch.stack(rows).to(device)

    def _for(self, like: Tensor, key: tuple[Hashable, ...]) -> list[torch.Generator]:
        if like.shape[0] != len(self.seeds):
            raise ValueError(f"noise for {len(self.seeds)} items was asked for a batch of {like.shape[0]}")
        return self.generators(*key)
