"""Average: the exponential moving average of weights that sampling uses.

    w̄ ← d w̄ + (1 − d) w,   started at w;   with warm-up  d_n = min(d, (1 + n)/(10 + n)),  n = 1, 2, …

(Polyak averaging as in Ho et al. 2020; the warm-up is latent diffusion's.)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Averaged copies of named parameters and buffers.

    Args:
        tensors: Name → live tensor; parameters are averaged, buffers and integers are copied.
        decay: d in [0, 1).
        warmup: Start fast.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, decay: float, warmup: bool) -> None:
        self.live = dict(tensors)
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self.copies = {name: t.detach().clone() for name, t in self.live.items()}

    def rate(self) -> float:
        """Return the decay of the next update."""
        n = self.updates + 1
        return min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Take the live weights into the average."""
        rate = self.rate()
        self.updates += 1
        moving = [n for n, t in self.live.items() if isinstance(t, nn.Parameter) and t.is_floating_point()]
        torch._foreach_lerp_([self.copies[n] for n in moving], [self.live[n] for n in moving], 1 - rate)
        for name in self.live.keys() - set(moving):
            self.copies[name].copy_(self.live[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the live tensors hold the average; afterwards exactly what they held before."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, live in self.live.items():
            kept = live.clone()
            live.copy_(self.copies[name])
            self.copies[name].copy_(kept)

    def load(self, copies: Mapping[str, Tensor], updates: int) -> None:
        """Restore what was saved."""
        for name, copy in self.copies.items():
            copy.copy_(copies[name])
        self.updates = updates
