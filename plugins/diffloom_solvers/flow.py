"""Rectified flow: x_t = (1 − u) x_0 + u ε, a straight line from data to noise (Liu et al. 2023; Esser et al. 2024)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffloom.schedule import Schedule


@dataclass(kw_only=True, eq=False)
class Flow(Schedule):
    """α = 1 − u, σ = u with shifted times; ends at pure noise, so predict v, x0 or flow.

    The shift u ← k u/(1 + (k − 1) u) spends more levels near noise (Esser et al. 2024, eq. 23). Larger
    images want a larger one: with m and n pixels the same noise hides as much for k = √(m/n), which `size`
    and `base_size` ask for.
    """

    steps: Annotated[int, Field(gt=0, description="T, the number of noise levels")] = 1000
    shift: Annotated[float, Field(gt=0, description="k at the base size; 1 leaves times as they are")] = 1.0
    size: Annotated[
        int | None, Field(gt=0, description="side of what is diffused; the shift is multiplied by size/base_size")
    ] = None
    base_size: Annotated[int, Field(gt=0, description="side for which `shift` is meant")] = 32

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        k = self.shift * (1.0 if self.size is None else self.size / self.base_size)
        step = torch.arange(1, self.steps + 1, dtype=torch.float64)
        rest = self.steps - step
        return rest / (rest + k * step), k * step / (rest + k * step)
