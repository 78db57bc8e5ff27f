"""Features: stacked maps ↦ features of every level, by one extractor (Zhao et al. 2023; CRS-Diff, section III).

At 512×512 pixels, with an autoencoder of stride 8: 3×3 convolutions to 32, 64 (halved), 64, 128 (halved) and 128
channels, then one that halves for each level, to 192 (64×64), 256 (32×32), 384 (16×16) and 512 (8×8), SiLU after each.
Every level leaves through a 3×3 convolution of its width that is 0 at the start: then maps say nothing.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from diffloom.errors import IncompatibleParts
from diffloom_nets import Conv2d, xavier, zero

_HALVINGS = 3


class FeatureExtractor(nn.Module):
    """(B, channels, H, W) ↦ {stride of a level: (B, width of the level, H / s / stride, W / s / stride)}.

    Args:
        channels: Of the stacked maps.
        reduction: s, how many times larger the maps are than what is diffused: 1, 2, 4 or 8.
        widths: Width of each level, the finest first; each is half as large as the one before.
        narrow: Widths on the way to the finest level; the last two have two convolutions.

    Raises:
        IncompatibleParts: s is another number.
    """

    def __init__(
        self, channels: int, reduction: int, widths: Sequence[int], narrow: tuple[int, int, int] = (32, 64, 128)
    ) -> None:
        super().__init__()
        halvings = _halvings(reduction)
        first, second, third = narrow
        path = [channels, first, second, second, third, third, widths[0]]
        strides = [1, 2 if halvings > 0 else 1, 1, 2 if halvings > 1 else 1, 1, 2 if halvings > 2 else 1]
        steps = [_conv(a, b, stride) for (a, b), stride in zip(pairwise(path), strides, strict=True)]
        self.enter = nn.ModuleList(steps[:-1])
        self.levels = nn.ModuleList([steps[-1], *(_conv(a, b, 2) for a, b in pairwise(widths))])
        self.leave = nn.ModuleList(zero(Conv2d(width, width, 3, padding=1)) for width in widths)

    def forward(self, maps: Tensor) -> Mapping[int, Tensor]:
        """Return the features of every level."""
        h, features = maps, {}
        for step in self.enter:
            h = functional.silu(step(h))
        for level, (step, leave) in enumerate(zip(self.levels, self.leave, strict=True)):
            h = functional.silu(step(h))
            features[2**level] = leave(h)
        return features


def _conv(inputs: int, outputs: int, stride: int) -> Conv2d:
    return xavier(Conv2d(inputs, outputs, 3, stride=stride, padding=1))


def _halvings(reduction: int) -> int:
    halvings = math.log2(reduction)
    if not halvings.is_integer() or halvings > _HALVINGS:
        raise IncompatibleParts(
            "maps cannot be brought to the size of what is diffused",
            where="local-controls",
            expected="an autoencoder with stride 1, 2, 4 or 8",
            got=f"stride {reduction}",
        )
    return int(halvings)
