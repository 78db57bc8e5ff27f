"""Classifier-free guidance for any number of conditions, all branches in one batch.

    ε = ε(∅) + Σ_i s_i (ε(c_1 … c_i) − ε(c_1 … c_{i−1}))

One condition is the guidance of Ho & Salimans (2022), two are InstructPix2Pix's (Brooks et al. 2023, eq. 3). The sum
is a weighted mean of branches whose weights add to 1, so it may be taken of the network's raw output: every
prediction type is affine in ε at fixed x_t.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from diffloom.condition import stack
from diffloom.conditioner import Code, Conditioner


def branch_weights(scales: Sequence[float]) -> list[float]:
    """Return the weight of each branch ε(c_1 … c_k), k = 0 … n, for guidance scales s_1 … s_n; they sum to 1."""
    ladder = [1.0, *scales, 0.0]
    return [upper - lower for upper, lower in pairwise(ladder)]


def branches(
    conditioners: Mapping[str, Conditioner], codes: Mapping[str, Code], scales: Mapping[str, float]
) -> tuple[dict[str, Code], list[float]]:
    """Stack the codes of all branches that count along the batch.

    Args:
        conditioners: All conditioners, in the recipe's order.
        codes: Their codes for one batch.
        scales: Guidance scale of those that are guided; the others are given in every branch.

    Returns:
        The codes for (branches · B) items, and the weight of each branch. A branch of weight 0 is left out.
    """
    guided = [name for name in conditioners if name in scales]
    weights = branch_weights([scales[name] for name in guided])
    kept = [k for k, weight in enumerate(weights) if weight != 0]
    stacked = {}
    for name, code in codes.items():
        rank = guided.index(name) if name in scales else -1
        null = conditioners[name].null(code) if any(k <= rank for k in kept) else code
        stacked[name] = stack([code if rank < k else null for k in kept]) if len(kept) > 1 else code
        if len(kept) == 1 and kept[0] <= rank:
            stacked[name] = null
    return stacked, [weights[k] for k in kept]


def combine(output: Tensor, weights: Sequence[float], mean_channels: int) -> Tensor:
    """Return the weighted mean of the branches of `output`, (branches · B, C′, …) → (B, C′, …).

    Channels past `mean_channels` (learned variance) are those of the last, fully conditioned branch.
    """
    if len(weights) == 1:
        return output
    parts = output.chunk(len(weights))
    mean = parts[0][:, :mean_channels] * weights[0]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        mean = mean.add(part[:, :mean_channels], alpha=weight)
    if output.shape[1] == mean_channels:
        return mean
    return torch.cat([mean, parts[-1][:, mean_channels:]], 1)
