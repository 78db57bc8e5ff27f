"""Transformers over the pixels of a feature map that look at a context (Rombach et al. 2022, appendix E.2.1).

x ← x + SA(LN(x));  x ← x + CA(LN(x), context);  x ← x + FF(LN(x)),  FF(x) = W₂(a ⊙ gelu(b)), [a | b] = W₁ x
"""

from collections.abc import Callable
from functools import partial
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom.condition import Condition
from diffloom_nets.attention import TokenAttention, map_of, tokens_of
from diffloom_nets.blocks import GroupNorm
from diffloom_nets.buffers import buffer
from diffloom_nets.conv import xavier, zero
from diffloom_nets.cross_attention import CrossAttention
from diffloom_nets.linear import Linear, fuses
from diffloom_nets.prepared import on_cpu
from diffloom_nets.product import multiply

_EPS = 1e-6  # of the transformer's first normalisation, whatever the network's is
_EXPANSION = 4
_PIECE = 1024  # tokens of a batch at a time: fewer would rearrange the weights of the products too often
_FEWEST = 128  # tokens of an item at a time
_MOST_KEPT = 1 << 24  # numbers in a buffer


class FeedForward(nn.Module):
    """Linear → a ⊙ gelu(b) → drop-out → linear (GEGLU, Shazeer 2020, arXiv 2002.05202), four times as wide inside.

    Args:
        width: Of the tokens.
        out: Width of the output; the tokens' where it is `None`.
        dropout: Probability.
    """

    def __init__(self, width: int, out: int | None = None, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = xavier(Linear(width, 2 * _EXPANSION * width))
        self.contract = xavier(Linear(_EXPANSION * width, width if out is None else out))
        self.dropout = dropout

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Return the output (…, out) for x (…, width), plus `plus` (…, out) where it is given."""
        if fuses(x, self.expand.weight):
            values, gates = self.expand.weight.chunk(2)
            value_bias, gate_bias = self.expand.bias.chunk(2)
            gated = multiply(x, values, value_bias, times=multiply(x, gates, gate_bias, gelu=True))
        else:
            value, gate = self.expand(x).chunk(2, -1)
            gated = value * functional.gelu(gate)
        if self.dropout:
            gated = functional.dropout(gated, self.dropout, self.training)
        out: Tensor = self.contract(gated, plus)
        return out


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
        found = self.attend.find(_in_parts(self._asked, x, into="filters"))
        return _in_parts(partial(self._answered, told=told), x, found)

    def _asked(self, x: Tensor) -> Tensor:
        """Return Q, K and V of some tokens."""
        asked: Tensor = self.attend.qkv(self.norm1(x))
        return asked

    def _answered(self, x: Tensor, found: Tensor, told: Condition) -> Tensor:
        """Return the block's output for some tokens and what they found."""
        x = told.spread(self.attend.proj(found, x))
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


def _in_parts(function: Callable[..., Tensor], *tokens: Tensor, into: str | None = None) -> Tensor:
    """Return a function of tokens (B, N, …) that treats each for itself and keeps N.

    Inference on a CPU takes some tokens after others, so that what lies between them stays in the cache. What is used
    up before the next call goes into a buffer of that purpose, unless it is large.
    """
    batch, count = tokens[0].shape[:2]
    step = max(_FEWEST, _PIECE // batch)
    if step >= count or torch.is_grad_enabled() or not on_cpu(tokens[0], tokens[0]):
        return function(*tokens)
    parts = [slice(first, first + step) for first in range(0, count, step)]
    made = function(*(x[:, parts[0]] for x in tokens))
    shape = len(made), count, *made.shape[2:]
    kept = None if prod(shape) > _MOST_KEPT else into
    out = made.new_empty(shape) if kept is None else buffer(kept, *shape, dtype=made.dtype)
    out[:, parts[0]] = made
    for part in parts[1:]:
        out[:, part] = function(*(x[:, part] for x in tokens))
    return out
