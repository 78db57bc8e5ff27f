"""Building blocks of denoisers, shared by the plugins: time, residual blocks, attention, resampling.

Every block keeps feature maps in `channels_last` and never waits for the device. The last layer of a residual
branch is zero, so a network starts without them.
"""

from diffloom_nets.attention import SelfAttention
from diffloom_nets.blocks import GroupNorm, ResBlock, group_count
from diffloom_nets.conv import Conv2d, xavier, zero
from diffloom_nets.embedding import Convention, TimeEmbedding, TimeProjection, sinusoidal
from diffloom_nets.resample import Downsample, Padding, Upsample
from diffloom_nets.taps import Taps

__all__ = [
    "Conv2d",
    "Convention",
    "Downsample",
    "GroupNorm",
    "Padding",
    "ResBlock",
    "SelfAttention",
    "Taps",
    "TimeEmbedding",
    "TimeProjection",
    "Upsample",
    "group_count",
    "sinusoidal",
    "xavier",
    "zero",
]
