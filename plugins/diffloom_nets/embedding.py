"""Embeddings of time: t ↦ sines and cosines of geometric frequencies ↦ what every residual block is told.

Two conventions exist and pretrained weights know only one of them. With h = width // 2 and k = 0 … h−1:
`ddpm` is [sin | cos] of t · 10000^{−k/(h−1)} (Ho et al. 2020), `adm` is [cos | sin] of t · 10000^{−k/h}
(Nichol & Dhariwal 2021, latent diffusion, Stable Diffusion).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom_nets.conv import xavier

Convention = Literal["ddpm", "adm"]


def sinusoidal(t: Tensor, width: int, convention: Convention = "ddpm") -> Tensor:
    """Return the embedding of t.

    Args:
        t: Time, any shape, integer or real; computed in float32, or float64 where t is.
        width: Numbers per time; an odd one ends with a 0.
        convention: `ddpm` or `adm`, see above.

    Returns:
        (*t.shape, width), in [−1, 1].
    """
    dtype = torch.float64 if t.dtype == torch.float64 else torch.float32
    half = width // 2
    steps = max(half - 1, 1) if convention == "ddpm" else max(half, 1)
    k = torch.arange(half, device=t.device, dtype=dtype)
    angle = t.to(dtype).unsqueeze(-1) * torch.exp(k * (-math.log(10000.0) / steps))
    parts = (angle.sin(), angle.cos()) if convention == "ddpm" else (angle.cos(), angle.sin())
    return functional.pad(torch.cat(parts, -1), (0, width % 2))


class TimeEmbedding(nn.Module):
    """Sinusoid → linear → SiLU → linear, plus the condition's vector where there is one.

    Args:
        width: Width of the sinusoid.
        out: Width of the embedding; the papers use 4 · width.
        convention: Which sinusoid.
        vector: Width of a vector to be added; another width than `out` is projected first; 0 for none.
    """

    def __init__(self, width: int, out: int, *, convention: Convention = "ddpm", vector: int = 0) -> None:
        super().__init__()
        self.width = width
        self.convention: Convention = convention
        self.expand = xavier(nn.Linear(width, out))
        self.mix = xavier(nn.Linear(out, out))
        self.project = xavier(nn.Linear(vector, out)) if vector not in (0, out) else None

    def forward(self, t: Tensor, vector: Tensor | None = None) -> Tensor:
        """Return the embedding.

        Args:
            t: (B,), or 0-d for a whole batch at one level, which is embedded once.
            vector: (B, vector), or `None`.

        Returns:
            (B, out); (1, out) for 0-d t and no vector.
        """
        dtype = self.expand.weight.dtype
        wave = sinusoidal(t.reshape(-1), self.width, self.convention)
        h: Tensor = self.expand(wave.to(self.expand.weight.device, dtype, non_blocking=True))
        h = self.mix(functional.silu(h))
        if vector is None:
            return h
        vector = vector.to(dtype)
        return h.add(vector if self.project is None else self.project(vector))


class TimeProjection(nn.Linear):
    """SiLU → linear for all residual blocks of a network at once: one matrix product instead of dozens.

    Args:
        width: Width of the time embedding.
        widths: What each block asks for, in the order of the blocks (`ResBlock.time_width`).
    """

    def __init__(self, width: int, widths: Sequence[int]) -> None:
        super().__init__(width, sum(widths))
        self.widths = list(widths)
        with torch.no_grad():
            for rows in torch.split(self.weight, self.widths):
                nn.init.xavier_uniform_(rows)
            self.bias.zero_()

    def first(self, count: int) -> "TimeProjection":
        """Return a copy that projects to the first `count` blocks alone."""
        widths = self.widths[:count]
        with torch.device(self.weight.device):
            part = TimeProjection(self.in_features, widths).to(self.weight.dtype)
        with torch.no_grad():
            for mine, whole in zip(part.parameters(), self.parameters(), strict=True):
                mine.copy_(whole[: sum(widths)])
        return part

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # one tensor per block
        """Return what each block is told, (B, width of the block) each, for embeddings (B, width)."""
        return torch.split(super().forward(functional.silu(embedding)), self.widths, -1)
