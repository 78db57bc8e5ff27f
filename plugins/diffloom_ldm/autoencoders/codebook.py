"""Codebook: vectors that stand for all others, the nearest for each (van den Oord et al. 2017, VQ-VAE).

Law: a latent becomes its nearest code e_k, k = argmin ‖z − e‖²; gradients pass as if it had not, z + sg(e_k − z).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, distributed, nn

from diffloom.noise import Noise

_MOST = 1 << 24  # distances computed at a time
_EPS = 1e-5

CodebookLoss = Literal["correct", "legacy"]


@dataclass(frozen=True, eq=False)
class Quantised:
    """Latents as codes.

    Attributes:
        values: The codes, (B, e, *spatial); their gradient goes to the latents as it is.
        indices: Which codes, int64 (B, *spatial).
        loss: What pulls codes and latents together, 0-d.
        perplexity: exp(−Σ p ln p) of the codes' shares p in the batch, 0-d: how many are in use, 1 … K.
        usage: Share of the codes that occur in the batch, 0-d.
    """

    values: Tensor
    indices: Tensor
    loss: Tensor
    perplexity: Tensor
    usage: Tensor


class Codebook(nn.Module):
    """K vectors.

    Args:
        size: K.
        width: Of a vector.
        beta: Weight of the commitment.
        loss: `correct` is mean (sg(z) − e)² + β mean (z − sg(e))²; `legacy` has β on the first term instead, as
            the original code and its released weights.
        decay: γ of moving averages that make the codes, instead of a gradient: then the loss is the commitment.
        restart: Steps after which a code that never occurred becomes a latent of the batch; `None`: never.
    """

    def __init__(
        self,
        size: int,
        width: int,
        *,
        beta: float = 0.25,
        loss: CodebookLoss = "correct",
        decay: float | None = None,
        restart: int | None = None,
    ) -> None:
        super().__init__()
        self.counts: Tensor
        self.sums: Tensor
        self.idle: Tensor
        self.size, self.width = size, width
        self.beta, self.loss, self.decay, self.restart = beta, loss, decay, restart
        vectors = torch.empty(size, width).uniform_(-1 / size, 1 / size)
        if decay is None:
            self.vectors: Tensor = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)
            self.register_buffer("counts", torch.ones(size))
            self.register_buffer("sums", vectors.clone())
        if restart is not None:
            self.register_buffer("idle", torch.zeros(size, dtype=torch.int64))

    @property
    def bits(self) -> float:
        """Most bits that one position takes: log₂ K."""
        return math.log2(self.size)

    def nearest(self, z: Tensor) -> Tensor:
        """Return the index of the nearest code for latents z (B, e, *spatial), int64 (B, *spatial)."""
        rows = z.detach().movedim(1, -1).reshape(-1, self.width)
        codes = self.vectors.detach().to(rows.dtype)
        lengths = codes.square().sum(1)
        step = max(1, _MOST // self.size)
        found = [torch.addmm(lengths, part, codes.T, alpha=-2).argmin(1) for part in torch.split(rows, step)]
        return torch.cat(found).view(z.shape[0], *z.shape[2:])

    def lookup(self, indices: Tensor) -> Tensor:
        """Return the codes (B, e, *spatial) of indices (B, *spatial)."""
        return nn.functional.embedding(indices, self.vectors).movedim(-1, 1)

    def forward(self, z: Tensor, noise: Noise | None = None) -> Quantised:
        """Return latents z (B, e, *spatial) as codes; in training, averages and restarts change the codebook.

        Args:
            z: Latents.
            noise: Chooses the latents that replace idle codes.
        """
        learning = self.training and torch.is_grad_enabled()
        if learning and self.restart is not None and noise is not None:
            self._restart(z.detach(), noise)
        indices = self.nearest(z)
        codes = self.lookup(indices)
        pull, commit = (codes - z.detach()).square().mean(), (z - codes.detach()).square().mean()
        if self.decay is not None:
            loss = self.beta * commit
        elif self.loss == "correct":
            loss = pull + self.beta * commit
        else:
            loss = self.beta * pull + commit
        counts = _over_processes(self._counts(indices))
        if learning:
            self._learn(z.detach(), indices, counts)
        p = counts / counts.sum()
        return Quantised(
            values=z + (codes - z).detach(),
            indices=indices,
            loss=loss,
            perplexity=torch.exp(-torch.xlogy(p, p).sum()),
            usage=(counts > 0).to(p.dtype).mean(),
        )

    def _counts(self, indices: Tensor) -> Tensor:
        """Return how often each code occurs, (K,)."""
        ones = torch.ones(indices.numel(), device=indices.device)
        return torch.zeros(self.size, device=indices.device).index_add_(0, indices.flatten(), ones)

    @torch.no_grad()
    def _learn(self, z: Tensor, indices: Tensor, counts: Tensor) -> None:
        """Count idle steps, and let the averages take in a batch.

        N ← γN + (1 − γ)n,  M ← γM + (1 − γ)Σz,  e = M/Ñ with Ñ = (N + ε)/(ΣN + Kε) · ΣN.
        """
        if self.restart is not None:
            self.idle.add_(1).masked_fill_(counts > 0, 0)
        if self.decay is None:
            return
        rows = z.movedim(1, -1).reshape(-1, self.width).to(self.sums.dtype)
        sums = _over_processes(torch.zeros_like(self.sums).index_add_(0, indices.flatten(), rows))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + _EPS) / (total + self.size * _EPS) * total
        self.vectors.copy_(self.sums / smooth[:, None])

    @torch.no_grad()
    def _restart(self, z: Tensor, noise: Noise) -> None:
        """Put latents of the batch in the place of codes that were idle for too long."""
        rows = z.movedim(1, -1).reshape(-1, self.width).to(self.vectors.dtype)
        draws = noise[:1].uniform(torch.empty(1, self.size, device=z.device), "restart")[0]
        fresh = rows[(draws * len(rows)).long()]
        if distributed.is_available() and distributed.is_initialized():
            distributed.broadcast(fresh, 0)
        idle = self.idle >= (self.restart or 0)
        self.vectors.copy_(torch.where(idle[:, None], fresh, self.vectors))
        if self.decay is not None:
            self.counts.masked_fill_(idle, 1)
            self.sums.copy_(torch.where(idle[:, None], fresh, self.sums))
        self.idle.masked_fill_(idle, 0)


def _over_processes(x: Tensor) -> Tensor:
    """Return the sum of x over all processes that train together."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(x)
    return x
