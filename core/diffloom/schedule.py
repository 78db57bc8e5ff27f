"""Schedule: the Gaussian path  x_t = α_t x_0 + σ_t ε,  t = 0 … T−1, clean at t = −1 (α = 1, σ = 0).

Law: log-SNR  ln(α_t²/σ_t²)  falls strictly with t. A schedule gives one table; everything else follows from it in
float64, for integer and for real t. Variance-preserving (α² + σ² = 1), variance-exploding (α = 1) and rectified-flow
(α + σ = 1) paths are all such tables, and real-valued t stays on its path.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from diffloom.errors import IncompatibleParts

Time = int | float | Tensor
Path = Literal["vp", "ve", "flow", "other"]


@dataclass(frozen=True)
class Gaussian:
    """A diagonal normal distribution.

    Attributes:
        mean: The mean, any shape.
        variance: The variance, broadcastable to the mean.
    """

    mean: Tensor
    variance: Tensor


class Schedule(ABC):
    """The noise levels of a diffusion. Subclasses set `steps` and give `table`; the rest is final."""

    steps: int

    @abstractmethod
    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ): float64 tensors of shape (steps,) on the CPU, log-SNR strictly falling."""
