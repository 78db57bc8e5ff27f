"""Log-SNR as a straight line over time, on the variance-preserving path."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffloom import Schedule


@dataclass(kw_only=True, eq=False)
class Straight(Schedule):
    """Log-SNR falls by the same amount in every step, from `start` to `−start`."""

    steps: Annotated[int, Field(gt=0, description="T, the number of noise levels")] = 1000
    start: Annotated[float, Field(gt=0, description="log-SNR of the first level")] = 9.0

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        u = torch.arange(1, self.steps + 1, dtype=torch.float64) / self.steps
        log_snr = self.start - 2 * self.start * u
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
