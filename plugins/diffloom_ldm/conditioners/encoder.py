"""TokenEncoder: tokens ↦ a context, by a transformer without a mask (Rombach et al. 2022, appendix E.2.1).

Law: with x_0 = embedding + learned position,  x ← x + attention(norm x),  x ← x + feed-forward(norm x)  in every
layer, and a last norm. Attention has `heads` of `head_width` each, which need not add up to the width; Q, K, V have
no bias, the feed-forward is four times as wide, with GELU.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom_nets import attend


class Layer(nn.Module):
    """One pre-norm layer of self-attention and feed-forward.

    Args:
        width: Of the tokens.
        heads: Attention heads.
        head_width: Channels of each.
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.proj = nn.Linear(inner, width)
        self.feed_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens (B, M, width) after the layer."""
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.proj(attend(q, k, v, self.heads))
        out: Tensor = x + self.narrow(functional.gelu(self.widen(self.feed_norm(x))))
        return out


class TokenEncoder(nn.Module):
    """A transformer over token numbers.

    Args:
        tokens: Size of the vocabulary.
        length: Most tokens of a sequence.
        width: Of the tokens inside and of the context.
        layers: How many.
        heads: Attention heads of each.
        head_width: Channels of each head.
    """

    def __init__(self, tokens: int, length: int, width: int, *, layers: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(tokens, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        for weight in (self.table.weight, self.positions):
            nn.init.normal_(weight, std=0.02)
        self.layers = nn.ModuleList(Layer(width, heads, head_width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the context (B, M, width) of token numbers (B, M), M ≤ length."""
        x = self.table(numbers) + self.positions[: numbers.shape[1]]
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.norm(x)
        return out
