"""Strengths: how much of each of a ControlNet's outputs is added.

    even        s_i = 1
    guess       s_i = 0.825^{n−i}: the coarser the stronger, the middle whole (Zhang et al. 2023, their code)
    logspace    s_i = 10^{i/n − 1}: the same in diffusers
    resolution  s_i = stride of the map: 64/h_i where latents are 64 wide (Zhang et al. 2023, section 3.4)

for the outputs i = 0 … n, the last of which goes to the middle; n = 12 for Stable Diffusion.
"""

from collections.abc import Sequence
from typing import Literal

Weighting = Literal["even", "guess", "logspace", "resolution"]

_GUESS = 0.825


def strengths(weighting: Weighting, strides: Sequence[int]) -> list[float]:
    """Return s_i for outputs at maps of the given strides."""
    last = max(len(strides) - 1, 1)
    if weighting == "guess":
        return [_GUESS ** (len(strides) - 1 - i) for i in range(len(strides))]
    if weighting == "logspace":
        return [10 ** (i / last - 1) for i in range(len(strides))]
    return [float(stride) for stride in strides] if weighting == "resolution" else [1.0] * len(strides)
