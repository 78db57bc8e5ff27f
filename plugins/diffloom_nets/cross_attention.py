"""Cross-attention: tokens look at a context, with several heads, softmax(x W_q Kᵀ/√d) V W_o.

What depends on the context alone is projected once for all steps of a walk. Mostly that is K and V. For a context of
at most half as many tokens as a head is wide, inference on a CPU goes on, head by head, to W_q Kᵀ/√d and V W_o: the
tokens that look are multiplied with these directly, and neither Q nor the output's projection remains (DeepSeek-V2
absorbs its projections likewise, arXiv 2405.04434, section 2.1.2). 77 tokens and heads 160 wide need half of the
multiplications, one class needs none to speak of.
"""

import torch
from torch import Tensor, nn

from diffloom.condition import Condition
from diffloom_nets.attention import attend, head_count
from diffloom_nets.conv import xavier
from diffloom_nets.linear import Linear, fuses, linear


class CrossAttention(nn.Module):
    """proj(attention) of tokens to a context: Q from the tokens, K and V from the context, without biases.

    Args:
        width: Of the tokens.
        context: Width of the context's tokens.
        heads: How many heads share the width; must divide it.
        name: Under which a condition keeps what was projected of its context for this layer.
    """

    def __init__(self, width: int, context: int, *, heads: int, name: str = "cross") -> None:
        super().__init__()
        self.name = name
        self.heads = head_count(heads, width)
        self.q = xavier(Linear(width, width, bias=False))
        self.kv = xavier(Linear(context, 2 * width, bias=False))
        self.proj = xavier(Linear(width, width))

    def project(self, context: Tensor) -> dict[str, Tensor]:
        """Return what a condition is to keep of its context (B, M, context) for this layer, by name.

        Returns:
            [K | V], (B, M, 2 · width), under the layer's name; or, with `.keys` and `.values` after it, W_q Kᵀ/√d and
            V W_o of every head, both (B, M, heads · width).
        """
        pair = self._pair(context)
        batch, tokens, width = *pair.shape[:2], self.q.in_features // self.heads
        short = 2 * tokens <= width and batch * tokens <= width  # no more numbers than W_q and W_o are
        if not short or not fuses(pair, self.q.weight):
            return {self.name: pair}
        k, v = pair.chunk(2, -1)
        keys = _by_heads(k * width**-0.5, self.q.weight.view(self.heads, width, -1))
        values = _by_heads(v, self.proj.weight.T.view(self.heads, width, -1))
        return {f"{self.name}.keys": keys, f"{self.name}.values": values}

    def forward(self, x: Tensor, told: Condition, plus: Tensor | None = None) -> Tensor:
        """Return what the tokens find.

        Args:
            x: (B, N, width).
            told: With a context (B, M, context); what was projected of it before is used.
            plus: What to add, (B, N, width).

        Returns:
            (B, N, width).

        Raises:
            ValueError: There is no context.
        """
        keys, values = (told.projected.get(f"{self.name}.{part}") for part in ("keys", "values"))
        if keys is not None and values is not None:
            return self._absorbed(x, keys.to(x.dtype), values.to(x.dtype), told.context_mask, plus)
        pair = told.projected.get(self.name)
        if pair is None:
            if told.context is None:
                raise ValueError("there is no context to look at")
            pair = self._pair(told.context)
        q = self.q(x)
        k, v = pair.to(q.dtype).chunk(2, -1)
        out: Tensor = self.proj(attend(q, k, v, self.heads, told.context_mask), plus)
        return out

    def _pair(self, context: Tensor) -> Tensor:
        """Return [K | V] of a context (B, M, context), (B, M, 2 · width)."""
        pair: Tensor = self.kv(context.to(self.kv.weight.dtype))
        return pair

    def _absorbed(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, plus: Tensor | None) -> Tensor:
        """Return what the tokens find, by what `project` made; every item of the batch has factors of its own."""
        found = []
        for item, tokens in enumerate(x):
            scores = linear(tokens, keys[item].view(-1, x.shape[2])).view(len(tokens), -1, self.heads).transpose(1, 2)
            if mask is None:
                counts = scores.softmax(-1)
            else:  # where no token counts, nothing is found
                counts = scores.masked_fill(~mask[item], torch.finfo(scores.dtype).min).softmax(-1) * mask[item]
            counts, factors = counts.transpose(1, 2).flatten(1), values[item].view(-1, x.shape[2]).T
            found.append(linear(counts, factors, self.proj.bias, None if plus is None else plus[item]))
        return torch.stack(found) if len(found) > 1 else found[0].unsqueeze(0)


def _by_heads(tokens: Tensor, weights: Tensor) -> Tensor:
    """Return what every head's part of tokens (B, M, heads · d) is times its weights (heads, d, width), side by side.

    Returns:
        (B, M, heads · width).
    """
    heads, width, outputs = weights.shape
    out = tokens.new_empty(*tokens.shape[:2], heads, outputs)
    for item, part in enumerate(tokens):  # a product of the whole batch would copy the weights for every item
        out[item] = torch.bmm(part.view(-1, heads, width).transpose(0, 1), weights).transpose(0, 1)
    return out.flatten(2)
