"""Transformers over the pixels of a feature map that look at a context (Rombach et al. 2022, appendix E.2.1).

x ← x + SA(LN(x));  x ← x + CA(LN(x), context);  x ← x + FF(LN(x)),  FF(x) = W₂(a ⊙ gelu(b)), [a | b] = W₁ x
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom.condition import Condition
from diffloom_nets.attention import CrossAttention, TokenAttention, map_of, tokens_of
from diffloom_nets.blocks import GroupNorm
from diffloom_nets.conv import xavier, zero
from diffloom_nets.linear import Linear
from diffloom_nets.product import multiply

_EPS = 1e-6  # of the transformer's first normalisation, whatever the network's is
_EXPANSION = 4
_PIECE = 1024  # tokens at a time


class FeedForward(nn.Module):
    """Linear → a ⊙ gelu(b) → linear (GEGLU, Shazeer 2020, arXiv 2002.05202), four times as wide inside.

    Args:
        width: Of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = xavier(Linear(width, 2 * _EXPANSION * width))
        self.contract = xavier(Linear(_EXPANSION * width, width))

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Return the output for x (…, width), plus `plus` where it is given; both (…, width)."""
        if self.expand.fuses(x) and (plus is None or plus.dtype == x.dtype):
            return self._in_pieces(x, plus)
        value, gate = self.expand(x).chunk(2, -1)
        out: Tensor = self.contract(value * functional.gelu(gate), plus)
        return out

    def _in_pieces(self, x: Tensor, plus: Tensor | None) -> Tensor:
        """Return the output, some tokens after others, so that what lies between the layers stays in the cache."""
        tokens, added = x.flatten(0, -2), None if plus is None else plus.flatten(0, -2)
        values, gates = self.expand.weight.chunk(2)
        value_bias, gate_bias = self.expand.bias.chunk(2)
        made = []
        for start in range(0, len(tokens), _PIECE):
            part = slice(start, start + _PIECE)
            gate = multiply(tokens[part], gates, gate_bias, gelu=True)
            gated = multiply(tokens[part], values, value_bias, times=gate)
            summand = None if added is None else added[part]
            made.append(multiply(gated, self.contract.weight, self.contract.bias, plus=summand))
        return torch.cat(made).view(x.shape)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and a feed-forward layer, each added to its input after a normalisation.

    Args:
        width: Of the tokens.
        context: Width of the context's tokens.
        heads: Attention heads; must divide the width.
        name: Of the cross-attention; see `CrossAttention`.
    """

    def __init__(self, width: int, context: int, *, heads: int, name: str = "cross") -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attend = TokenAttention(width, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        self.cross = CrossAttention(width, context, heads=heads, name=name)
        self.norm3 = nn.LayerNorm(width)
        self.feed = FeedForward(width)

    def forward(self, x: Tensor, told: Condition) -> Tensor:
        """Return tokens (B, N, width) for tokens of B items, or of fewer that branches share, and for what is told."""
        x = told.spread(self.attend(self.norm1(x), x))
        x = self.cross(self.norm2(x), told, x)
        out: Tensor = self.feed(self.norm3(x), x)
        return out


class SpatialTransformer(nn.Module):
    """h + leave(blocks(enter(norm(h)))) over the pixels of a map as tokens; starts as the identity.

    Args:
        channels: Of the map.
        context: Width of the context's tokens.
        heads: Attention heads; must divide the channels.
        depth: How many blocks.
        groups: Most groups of the normalisation.
        name: Of the cross-attentions, with a number after it; see `CrossAttention`.
    """

    def __init__(
        self, channels: int, context: int, *, heads: int, depth: int = 1, groups: int = 32, name: str = "cross"
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, groups=groups, eps=_EPS)
        self.enter = xavier(Linear(channels, channels))
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, context, heads=heads, name=f"{name}.{index}") for index in range(depth)
        )
        self.leave = zero(Linear(channels, channels))

    def forward(self, h: Tensor, told: Condition) -> Tensor:
        """Return the map (B, C, H, W) after the transformer, for a map and what the network is told; see its blocks."""
        x = self.enter(tokens_of(self.norm(h)))
        for block in self.blocks:
            x = block(x, told)
        return map_of(self.leave(x, told.spread(tokens_of(h))), *h.shape[2:])
