"""A cosine schedule that is moved for large images (Hoogeboom et al. 2023, "simple diffusion", section 2.1)."""

import math
from typing import Annotated

import torch
from pydantic import Field

from diffloom import Schedule


class ShiftedCosine(Schedule):
    """log-SNR(u) = −2 ln tan(π u/2) + 2 ln(base/size), with α² + σ² = 1.

    Args:
        steps: T, the number of noisy levels.
        size: Height of the images that it is used for.
        base: Height at which it is the plain cosine schedule.
    """

    def __init__(
        self,
        *,
        steps: Annotated[int, Field(gt=1)] = 1000,
        size: Annotated[int, Field(gt=0)] = 64,
        base: Annotated[int, Field(gt=0)] = 64,
    ) -> None:
        self.steps, self.shift = steps, 2 * math.log(base / size)

    def table(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (α, σ), float64 (T,)."""
        u = (torch.arange(self.steps, dtype=torch.float64) + 0.5) / self.steps
        log_snr = -2 * (math.pi * u / 2).tan().log() + self.shift
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
