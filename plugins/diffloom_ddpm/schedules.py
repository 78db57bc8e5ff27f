"""The variance-preserving schedules of DDPM and its successors: linear, scaled linear, cosine, sigmoid.

Each is given by per-step variances β_i, or by a curve ᾱ(u) over u = (i + 1)/T from which these follow.
Beware of names elsewhere: latent diffusion calls scaled linear "linear", and linear "sqrt_linear".
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.errors import IncompatibleParts
from diffloom.path import from_alpha_bar, from_beta
from diffloom.schedule import Schedule

Steps = Annotated[int, Field(gt=0, description="T, the number of noise levels")]
BetaStart = Annotated[float, Field(gt=0, lt=1, description="β of the first level")]
BetaEnd = Annotated[float, Field(gt=0, lt=1, description="β of the last level")]
MaxBeta = Annotated[float, Field(gt=0, le=1, description="limit of every β, against a singular end")]


@dataclass(kw_only=True, eq=False)
class Linear(Schedule):
    """β rises linearly: β = linspace(β_1, β_T, T) (Ho et al. 2020, section 4)."""

    steps: Steps = 1000
    beta_start: BetaStart = 1e-4
    beta_end: BetaEnd = 0.02
    scaled: Annotated[
        bool, Field(description="multiply β by 1000/T, so that the last level is as noisy for every T > 20")
    ] = False

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        factor = 1000 / self.steps if self.scaled else 1.0
        if self.beta_end * factor >= 1:
            raise IncompatibleParts(
                "the scaled β of the last level is not a variance",
                where=f"schedule linear with {self.steps} steps",
                expected="less than 1",
                got=f"{self.beta_end * factor:g}",
                remedy=f"use more than {int(1000 * self.beta_end)} steps, or scaled: false",
            )
        return from_beta(_ramp(self.beta_start * factor, self.beta_end * factor, self.steps))


@dataclass(kw_only=True, eq=False)
class ScaledLinear(Schedule):
    """√β rises linearly: β = linspace(√β_1, √β_T, T)² (Rombach et al. 2022; Stable Diffusion's defaults)."""

    steps: Steps = 1000
    beta_start: BetaStart = 0.00085
    beta_end: BetaEnd = 0.012

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        return from_beta(_ramp(self.beta_start**0.5, self.beta_end**0.5, self.steps).square())


@dataclass(kw_only=True, eq=False)
class Cosine(Schedule):
    """ᾱ(u) = f(u)/f(0), f(u) = cos²((u + s)/(1 + s) · π/2), β ≤ 0.999 (Nichol & Dhariwal 2021, eq. 17)."""

    steps: Steps = 1000
    s: Annotated[float, Field(gt=0, lt=1, description="keeps β of the first levels from vanishing")] = 0.008
    max_beta: MaxBeta = 0.999

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        u = _ramp(0.0, 1.0, self.steps + 1)
        return from_alpha_bar(((u + self.s) / (1 + self.s) * torch.pi / 2).cos().square(), self.max_beta)


@dataclass(kw_only=True, eq=False)
class Sigmoid(Schedule):
    """A sigmoid S of β or of ᾱ.

    `beta`: β = S(linspace(−6, 6, T)) (β_T − β_1) + β_1 (Xu et al. 2022). `alpha-bar`: ᾱ(u) = (S(e/τ) − S((u
    (e − s) + s)/τ))/(S(e/τ) − S(s/τ)), at least 1e-9 (Jabri et al. 2023; Chen 2023, algorithm 1).
    """

    steps: Steps = 1000
    of: Annotated[Literal["beta", "alpha-bar"], Field(description="which quantity follows the sigmoid")] = "alpha-bar"
    beta_start: BetaStart = 1e-4
    beta_end: BetaEnd = 0.02
    start: Annotated[float, Field(description="s, where the sigmoid of ᾱ begins")] = -3.0
    end: Annotated[float, Field(description="e, where the sigmoid of ᾱ ends; above start")] = 3.0
    tau: Annotated[float, Field(gt=0, description="temperature τ of the sigmoid of ᾱ")] = 1.0
    max_beta: MaxBeta = 0.999

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        if self.of == "beta":
            rise = _ramp(-6.0, 6.0, self.steps).sigmoid()
            return from_beta(rise * (self.beta_end - self.beta_start) + self.beta_start)
        place = _ramp(self.start, self.end, self.steps + 1).div(self.tau).sigmoid()
        alpha_bar = (place[-1] - place) / (place[-1] - place[0])
        return from_alpha_bar(alpha_bar.clamp(min=1e-9), self.max_beta)


def _ramp(start: float, stop: float, count: int) -> Tensor:
    return torch.linspace(start, stop, count, dtype=torch.float64)
