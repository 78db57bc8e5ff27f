"""Straight: a variance-preserving schedule whose share of signal falls in a straight line.

    α_t² = 1 − (1 − last) (t + 1)/T,    σ_t² = 1 − α_t²

Law: log-SNR falls strictly with t. The table is all that a schedule gives; the rest follows from it in float64.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffloom import Schedule


class Straight(Schedule):
    """The share of signal α² falls from almost 1 to `last` in equal steps.

    Args:
        steps: T, the number of noisy levels.
        last: α² at the last level.
    """

    def __init__(
        self,
        *,
        steps: Annotated[int, Field(gt=1)] = 1000,
        last: Annotated[float, Field(gt=0, lt=0.5)] = 1e-4,
    ) -> None:
        self.steps = steps
        self.last = last

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ), float64 (T,)."""
        signal = torch.linspace(1, self.last, self.steps + 1, dtype=torch.float64)[1:]
        return signal.sqrt(), (1 - signal).sqrt()
