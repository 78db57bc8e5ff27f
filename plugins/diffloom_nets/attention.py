"""Self-attention over the pixels of a feature map."""

from torch import Tensor, nn
from torch.nn import functional

from diffloom_nets.blocks import GroupNorm
from diffloom_nets.conv import Conv2d, xavier, zero


class SelfAttention(nn.Module):
    """h + proj(softmax(QKᵀ/√d) V), with Q, K, V from the normalised map; starts as the identity.

    Args:
        channels: Of the map.
        heads: How many heads share the channels; must divide them.
        groups: Most groups of the normalisation.
        eps: Of the normalisation.
    """

    def __init__(self, channels: int, *, heads: int = 1, groups: int = 32, eps: float = 1e-6) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{heads} heads cannot share {channels} channels")
        self.heads = heads
        self.norm = GroupNorm(channels, groups=groups, eps=eps)
        self.qkv = xavier(Conv2d(channels, 3 * channels, 1))
        self.proj = zero(Conv2d(channels, channels, 1))

    def forward(self, h: Tensor) -> Tensor:
        """Return the map (B, C, H, W) after attention; with channels_last maps no token is ever copied."""
        batch, channels, height, width = h.shape
        tokens = self.qkv(self.norm(h)).permute(0, 2, 3, 1).reshape(batch, height * width, 3, self.heads, -1)
        q, k, v = tokens.permute(2, 0, 3, 1, 4).unbind(0)
        out = functional.scaled_dot_product_attention(q, k, v)
        maps = out.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return h.add(self.proj(maps))
