"""Further variance-preserving schedules that are a formula: square root, quadratic, exponential, Laplace, polynomial.

u = (i + 1)/T is the time of level i in (0, 1]. β is per step, ᾱ = α² cumulative.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.path import from_alpha_bar, from_beta, from_log_snr
from diffloom.schedule import Schedule

Steps = Annotated[int, Field(gt=0, description="T, the number of noise levels")]
BetaStart = Annotated[float, Field(gt=0, lt=1, description="β of the first level")]
BetaEnd = Annotated[float, Field(gt=0, lt=1, description="β of the last level")]


@dataclass(kw_only=True, eq=False)
class Sqrt(Schedule):
    """A square root of β or of ᾱ; both destroy the signal fast.

    `alpha-bar`: ᾱ(u) = 1 − √(u + 1e-4), β ≤ 0.999 (Li et al. 2022, Diffusion-LM). `beta`: β =
    √linspace(β_1, β_T, T), latent diffusion's "sqrt", with ᾱ_T of about 1e-44.
    """

    steps: Steps = 1000
    of: Annotated[Literal["beta", "alpha-bar"], Field(description="which quantity follows the square root")] = (
        "alpha-bar"
    )
    offset: Annotated[float, Field(ge=0, lt=1, description="added to u under the root of ᾱ")] = 1e-4
    beta_start: BetaStart = 1e-4
    beta_end: BetaEnd = 0.02
    max_beta: Annotated[float, Field(gt=0, le=1, description="limit of every β of the curve ᾱ")] = 0.999

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        if self.of == "beta":
            return from_beta(_ramp(self.beta_start, self.beta_end, self.steps).sqrt())
        u = _ramp(0.0, 1.0, self.steps + 1)
        return from_alpha_bar(1 - (u + self.offset).sqrt(), self.max_beta)


@dataclass(kw_only=True, eq=False)
class Quadratic(Schedule):
    """β = linspace(√β_1, √β_T, T)², "quad" in DDPM's code: the scaled linear schedule with DDPM's ends."""

    steps: Steps = 1000
    beta_start: BetaStart = 1e-4
    beta_end: BetaEnd = 0.02

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        return from_beta(_ramp(self.beta_start**0.5, self.beta_end**0.5, self.steps).square())


@dataclass(kw_only=True, eq=False)
class Exponential(Schedule):
    """ᾱ(u) = exp(−k u): the same β in every step."""

    steps: Steps = 1000
    rate: Annotated[float, Field(gt=0, description="k; ᾱ of the last level is exp(−k)")] = 12.0

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        log_alpha_bar = -self.rate * _ramp(1 / self.steps, 1.0, self.steps)
        return (0.5 * log_alpha_bar).exp(), (-torch.expm1(log_alpha_bar)).sqrt()


@dataclass(kw_only=True, eq=False)
class Laplace(Schedule):
    """Log-SNR distributed as Laplace(μ, b) over uniform times (Hang et al. 2024, arXiv 2407.03297).

    log-SNR(u) = μ − b sgn(½ − u) ln(1 − 2|u − ½|) at u = (i + 1)/(T + 1), so most levels are near SNR e^μ.
    """

    steps: Steps = 1000
    mu: Annotated[float, Field(description="μ, the log-SNR on which levels concentrate")] = 0.0
    b: Annotated[float, Field(gt=0, description="b, how far levels spread around it")] = 0.5

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        u = torch.arange(1, self.steps + 1, dtype=torch.float64) / (self.steps + 1)
        log_snr = self.mu - self.b * torch.sign(0.5 - u) * torch.log1p(-2 * (u - 0.5).abs())
        return from_log_snr(log_snr, "vp")


@dataclass(kw_only=True, eq=False)
class Polynomial(Schedule):
    """α(u) = (1 − 2 s)(1 − u^p) + s (Hoogeboom et al. 2022, arXiv 2203.17003, appendix B)."""

    steps: Steps = 1000
    power: Annotated[float, Field(gt=0, description="p")] = 2.0
    s: Annotated[float, Field(gt=0, lt=0.5, description="keeps α from 1 at the first level and 0 at the last")] = 1e-5

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        rise = _ramp(1 / self.steps, 1.0, self.steps) ** self.power
        missing = rise * (1 - 2 * self.s) + self.s  # 1 − α
        return 1 - missing, (missing * (2 - missing)).sqrt()


def _ramp(start: float, stop: float, count: int) -> Tensor:
    """Return evenly spaced numbers; the last alone if there is one."""
    if count == 1:
        return torch.tensor([stop], dtype=torch.float64)
    return torch.linspace(start, stop, count, dtype=torch.float64)
