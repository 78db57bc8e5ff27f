"""Attention: softmax(QKᵀ/√d) V, with several heads; of tokens and of the pixels of a map to themselves."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom_nets.blocks import GroupNorm
from diffloom_nets.buffers import buffer
from diffloom_nets.conv import Conv2d, xavier, zero
from diffloom_nets.linear import Linear
from diffloom_nets.prepared import arithmetic, on_cpu
from diffloom_nets.product import multiply

_MOST_SCORES = 1 << 20  # of a thread, at a time
_FEWEST_ROWS = 64
_FAR = 2048  # tokens beyond which a head's keys and values are laid side by side first
_LARGE = 1 << 18  # numbers of an item that attends alone, in memory that the last one has used


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Return what every token of q finds.

    Args:
        q: (B, N, C), the heads one after another.
        k: (B, M, C).
        v: (B, M, C).
        heads: How many heads share the channels.
        mask: (B, M) bool, true where a token of k counts; `None` where all do. Where none counts, 0 is found.

    Returns:
        (B, N, C).
    """
    if len(q) == 1 or q[0].numel() < _LARGE or torch.is_grad_enabled() or not on_cpu(q, k):
        return _together(q, k, v, heads, mask)
    out = q.new_empty(q.shape)
    for item in (slice(index, index + 1) for index in range(len(q))):
        out[item] = _together(q[item], k[item], v[item], heads, None if mask is None else mask[item])
    return out


def _together(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """Return what `attend` does, all items at once."""
    dtype = q.dtype
    q, k, v = (_headed(x, heads) for x in (q, k, v))
    if mask is None and _in_blocks(q):
        return blockwise(q, k, v)
    if k.shape[2] > _FAR and not torch.is_grad_enabled() and on_cpu(k, v):
        k, v = (buffer(name, *x.shape, dtype=x.dtype).copy_(x) for name, x in (("tiles", k), ("data", v)))
    counts = None if mask is None else mask[:, None, None, :]
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=counts)
    return out.transpose(1, 2).flatten(2).to(dtype)


def blockwise(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(QKᵀ/√d) V, some rows of one head after others, so that their scores stay in the cache.

    It is not differentiable. Scores are rounded to the type of the tokens. A CPU multiplies bfloat16 several times
    faster than its kernel of the whole attention does.

    Args:
        q: (B, heads, N, d).
        k: (B, heads, M, d).
        v: (B, heads, M, d).

    Returns:
        (B, N, heads · d).
    """
    batch, heads, count, width = q.shape
    out = q.new_empty(batch, count, heads, width)
    q, k, values = q.contiguous() * width**-0.5, k.contiguous(), v.transpose(2, 3).contiguous()
    rows = max(_FEWEST_ROWS, _MOST_SCORES * torch.get_num_threads() // k.shape[2])
    for item in range(batch):
        for head in range(heads):
            for block in range(0, count, rows):
                part = slice(block, block + rows)
                counts = multiply(q[item, head, part], k[item, head], None).softmax(-1)
                out[item, part, head] = multiply(values[item, head], counts, None).T  # faster than the other way round
    return out.flatten(2)


def _in_blocks(q: Tensor) -> bool:
    """Whether inference attends by `blockwise`: in a bfloat16 that the CPU multiplies itself."""
    return (
        q.dtype == torch.bfloat16
        and not torch.is_grad_enabled()
        and on_cpu(q, q)
        and arithmetic(q.dtype) == torch.bfloat16
        and not torch.is_autocast_enabled("cpu")
    )


def _headed(x: Tensor, heads: int) -> Tensor:
    """Return tokens (B, N, C) as (B, heads, N, C / heads), in inference on a CPU in the type it computes in."""
    split = x.view(*x.shape[:2], heads, -1).transpose(1, 2)
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or not on_cpu(x, x):
        return split
    return split.to(arithmetic(x.dtype))


def tokens_of(h: Tensor) -> Tensor:
    """Return a map (B, C, H, W) as tokens (B, H · W, C), without a copy where it is in channels_last."""
    return h.permute(0, 2, 3, 1).flatten(1, 2)


def map_of(tokens: Tensor, height: int, width: int) -> Tensor:
    """Return tokens (B, H · W, C) as a map (B, C, H, W) in channels_last, without a copy."""
    return tokens.view(tokens.shape[0], height, width, -1).permute(0, 3, 1, 2)


class SelfAttention(nn.Module):
    """h + proj(attention), with Q, K, V from the normalised map; starts as the identity.

    Args:
        channels: Of the map.
        heads: How many heads share the channels; must divide them.
        groups: Most groups of the normalisation.
        eps: Of the normalisation.
    """

    def __init__(self, channels: int, *, heads: int = 1, groups: int = 32, eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = head_count(heads, channels)
        self.norm = GroupNorm(channels, groups=groups, eps=eps)
        self.qkv = xavier(Conv2d(channels, 3 * channels, 1))
        self.proj = zero(Conv2d(channels, channels, 1))

    def forward(self, h: Tensor) -> Tensor:
        """Return the map (B, C, H, W) after attention; with channels_last maps no token is ever copied."""
        q, k, v = tokens_of(self.qkv(self.norm(h))).chunk(3, -1)
        return h.add(self.proj(map_of(attend(q, k, v, self.heads), *h.shape[2:])))


class TokenAttention(nn.Module):
    """proj(attention) of tokens to themselves; Q, K and V are one product without a bias.

    Args:
        width: Of the tokens.
        heads: How many heads share it; must divide it.
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = head_count(heads, width)
        self.qkv = xavier(Linear(width, 3 * width, bias=False))
        self.proj = xavier(Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for tokens, both (B, N, width)."""
        out: Tensor = self.proj(self.find(self.qkv(x)))
        return out

    def find(self, asked: Tensor) -> Tensor:
        """Return what tokens with [Q | K | V] (B, N, 3 · width) find before the last projection, (B, N, width)."""
        q, k, v = asked.chunk(3, -1)
        return attend(q, k, v, self.heads)


def head_count(heads: int, width: int) -> int:
    """Return how many heads there are, if they can share the width; else raise a `ValueError`."""
    if width % heads:
        raise ValueError(f"{heads} heads cannot share {width} channels")
    return heads
