"""Building blocks of denoisers, shared by the plugins: time, residual blocks, attention, transformers, resampling.

Every block keeps feature maps in `channels_last` and never waits for the device. The last layer of a residual
branch is zero, so a network starts without them.
"""

from diffloom_nets.attention import SelfAttention, TokenAttention, attend
from diffloom_nets.blocks import GroupNorm, ResBlock, group_count
from diffloom_nets.conv import Conv2d, xavier, zero
from diffloom_nets.cross_attention import CrossAttention
from diffloom_nets.embedding import Convention, TimeEmbedding, TimeProjection, sinusoidal
from diffloom_nets.linear import Linear
from diffloom_nets.resample import Downsample, Padding, Resample, Upsample
from diffloom_nets.taps import Taps
from diffloom_nets.transformer import FeedForward, SpatialTransformer, TransformerBlock

__all__ = [
    "Conv2d",
    "Convention",
    "CrossAttention",
    "Downsample",
    "FeedForward",
    "GroupNorm",
    "Linear",
    "Padding",
    "ResBlock",
    "Resample",
    "SelfAttention",
    "SpatialTransformer",
    "Taps",
    "TimeEmbedding",
    "TimeProjection",
    "TokenAttention",
    "TransformerBlock",
    "Upsample",
    "attend",
    "group_count",
    "sinusoidal",
    "xavier",
    "zero",
]
