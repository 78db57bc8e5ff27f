"""The variance-exploding schedule of EDM: α = 1 and σ^{1/ρ} evenly spaced (Karras et al. 2022, eq. 5)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffloom.errors import IncompatibleParts
from diffloom.schedule import Schedule


@dataclass(kw_only=True, eq=False)
class Karras(Schedule):
    """σ_i = (σ_min^{1/ρ} + i/(T − 1) (σ_max^{1/ρ} − σ_min^{1/ρ}))^ρ, rising with i; the defaults are EDM's."""

    steps: Annotated[int, Field(gt=0, description="T, the number of noise levels")] = 1000
    sigma_min: Annotated[float, Field(gt=0, description="σ of the first level")] = 0.002
    sigma_max: Annotated[float, Field(gt=0, description="σ of the last level; above sigma_min")] = 80.0
    rho: Annotated[float, Field(gt=0, description="ρ; larger spends more levels near data")] = 7.0

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        if self.sigma_max <= self.sigma_min:
            raise IncompatibleParts(
                "the noise of a schedule does not rise",
                where="schedule karras",
                expected="sigma_max above sigma_min",
                got=f"{self.sigma_max:g} ≤ {self.sigma_min:g}",
                remedy="exchange them",
            )
        low, high = (end ** (1 / self.rho) for end in (self.sigma_min, self.sigma_max))
        if self.steps == 1:
            sigma = torch.tensor([self.sigma_max], dtype=torch.float64)
        else:
            sigma = torch.linspace(low, high, self.steps, dtype=torch.float64) ** self.rho
        return torch.ones_like(sigma), sigma
