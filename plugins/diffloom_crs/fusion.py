"""Fusion: how features of maps enter a residual block, in the place of its normalisations.

    denormalise   norm(h) ⊙ (1 + γ(f)) + β(f)                      (FDN; Uni-ControlNet, Zhao et al. 2023, eq. 2)
    enhanced      norm(h′) ⊙ (1 + γ(f)) + β(f),  h′ = h + V softmax(Qᵀ K)    (EnhancedFDN; CRS-Diff, Tang et al. 2024)
    add           h + β(f)                                          (where the map is not normalised)

γ and β are 3×3 convolutions, Q and K 1×1 convolutions to an eighth of the channels, V to all of them; attention is over
all positions, its logits are not scaled, and the normalisation has no weights of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom.condition import Affine
from diffloom_nets import Conv2d, group_count
from diffloom_nets.attention import map_of, tokens_of

How = Literal["enhanced", "denormalise", "add"]
Said = Mapping[str, Tensor]

_QUERIES = 512  # of attention at a time: all of them against all positions would be a matrix of 4096 × 4096
_SHARE = 8  # of the channels that Q and K have


@dataclass(frozen=True)
class Attended(Affine):
    """An edit whose map is first looked at by `attend`."""

    attend: Callable[[Tensor], Tensor] | None = None

    def __call__(self, h: Tensor) -> Tensor:
        """Return the edited feature map; `h` (B, C, H, W) is left as it was."""
        return super().__call__(h if self.attend is None else self.attend(h))


class PositionAttention(nn.Module):
    """h + V softmax(Qᵀ K) over all positions of a map, with one head and logits that are not scaled.

    Args:
        channels: Of the map, at least 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = Conv2d(channels, channels // _SHARE, 1)
        self.key = Conv2d(channels, channels // _SHARE, 1)
        self.value = Conv2d(channels, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        """Return the map (B, C, H, W) after attention."""
        q, k, v = (tokens_of(one(h))[:, None] for one in (self.query, self.key, self.value))
        found = [functional.scaled_dot_product_attention(part, k, v, scale=1.0) for part in torch.split(q, _QUERIES, 2)]
        return h + map_of(torch.cat(found, 2)[:, 0], *h.shape[2:])


class Fusion(nn.Module):
    """What features say at one tap: features ↦ scale and shift, and with them the edit.

    Args:
        features: Channels of the features.
        channels: Of the tap.
        how: See above.
    """

    def __init__(self, features: int, channels: int, how: How) -> None:
        super().__init__()
        self.groups = 0 if how == "add" else group_count(channels)
        self.scale = None if how == "add" else Conv2d(features, channels, 3, padding=1)
        self.shift = Conv2d(features, channels, 3, padding=1)
        self.attention = PositionAttention(channels) if how == "enhanced" else None

    def forward(self, features: Tensor) -> Said:
        """Return scale and shift (B, channels, H, W) for features (B, features, H, W)."""
        scale = {} if self.scale is None else {"scale": self.scale(features)}
        return {**scale, "shift": self.shift(features)}

    def edit(self, said: Said) -> Affine:
        """Return the edit of the tap by what the features said."""
        return Attended(said.get("scale"), said["shift"], self.groups, self.attention)
