"""Transformers over the pixels of a feature map that look at a context (Rombach et al. 2022, appendix E.2.1).

x ← x + SA(LN(x));  x ← x + CA(LN(x), context);  x ← x + FF(LN(x)),  FF(x) = W₂(a ⊙ gelu(b)), [a | b] = W₁ x
"""

from torch import Tensor, nn
from torch.nn import functional

from diffloom.condition import Condition
from diffloom_nets.attention import CrossAttention, TokenAttention, map_of, tokens_of
from diffloom_nets.blocks import GroupNorm
from diffloom_nets.conv import xavier, zero
from diffloom_nets.linear import Linear

_EPS = 1e-6  # of the transformer's first normalisation, whatever the network's is
_EXPANSION = 4


class FeedForward(nn.Module):
    """Linear → a ⊙ gelu(b) → linear (GEGLU, Shazeer 2020, arXiv 2002.05202), four times as wide inside.

    Args:
        width: Of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = xavier(Linear(width, 2 * _EXPANSION * width))
        self.contract = xavier(Linear(_EXPANSION * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, width) for x (…, width)."""
        value, gate = self.expand(x).chunk(2, -1)
        out: Tensor = self.contract(value * functional.gelu(gate))
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
        """Return tokens (B, N, width) for tokens and what the network is told."""
        x = x + self.attend(self.norm1(x))
        x = x + self.cross(self.norm2(x), told)
        fed: Tensor = self.feed(self.norm3(x))
        return x + fed


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
        """Return the map (B, C, H, W) after the transformer, for a map and what the network is told."""
        x = self.enter(tokens_of(self.norm(h)))
        for block in self.blocks:
            x = block(x, told)
        return h + map_of(self.leave(x), *h.shape[2:])
