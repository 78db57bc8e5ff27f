"""DDIM: a family of samplers with the marginals of DDPM and any amount of noise (Song et al. 2021, eq. 12).

    x_s = α_s x̂_0 + √(σ_s² − ς²) ε̂ + ς z,    ς = η σ_s √(1 − SNR_t/SNR_s)

η = 0 is deterministic and η = 1 is ancestral sampling with the posterior's variance. Written with log-SNR
the formulas hold on every path and at both ends: SNR is infinite at clean data and 0 at zero terminal SNR.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from diffloom.arithmetic import weighted
from diffloom.errors import IncompatibleParts
from diffloom.grid import Grid, Level
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule


@dataclass(kw_only=True, eq=False)
class DDIM(Sampler):
    """DDIM's sampler; the ODE solver of first order when η = 0."""

    examples: ClassVar[tuple[dict[str, object], ...]] = ({}, {"eta": 1.0}, {"noise": "large", "spacing": "karras"})

    eta: Annotated[float, Field(ge=0, description="η: 0 is deterministic, 1 is ancestral sampling")] = 0.0
    noise: Annotated[
        Literal["posterior", "large"],
        Field(description="posterior: the family above; large: DDPM's larger variance σ̂, without eta"),
    ] = "posterior"
    rederive: Annotated[
        bool,
        Field(description="with clip: take ε anew from the clipped estimate, instead of keeping the network's"),
    ] = False

    def __post_init__(self) -> None:
        """Refuse two kinds of noise at once."""
        if self.noise == "large" and self.eta > 0:
            raise IncompatibleParts(
                "the larger variance is no member of the family that eta chooses from",
                where="sampler.eta",
                expected="0 with noise: large",
                got=f"{self.eta:g}",
                remedy="remove eta, or use noise: posterior",
            )

    @property
    def stochastic(self) -> bool:
        """Whether η > 0 or the larger variance is used."""
        return self.eta > 0 or self.noise == "large"

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here, rederive=self.rederive)
        direction, std = self.coefficients(here, there)
        if self.noise == "large" and state.index == len(grid) - 1:  # σ̂ draws nothing in the last step
            std = 0.0
        x = weighted((there.alpha, said.x0), (direction, said.eps))
        if std > 0:
            x = weighted((1.0, x), (std, self.draw(noise, state)))
        return State(x, state.index + 1)

    def coefficients(self, here: Level, there: Level) -> tuple[float, float]:
        """Return (coefficient of ε̂, standard deviation of the noise) of a step (eqs. 12 and 16)."""
        fresh = -math.expm1(here.log_snr - there.log_snr)  # 1 − SNR_t/SNR_s
        eta = 1.0 if self.noise == "large" else self.eta
        direction = there.sigma * math.sqrt(max(0.0, 1 - eta * eta * fresh))
        std = (here.sigma if self.noise == "large" else eta * there.sigma) * math.sqrt(fresh)
        return direction, std
