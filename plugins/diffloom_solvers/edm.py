"""EDM's stochastic sampler: Heun's method that first raises the noise a little (Karras et al. 2022, algorithm 2).

    γ = min(S_churn/n, √2 − 1) where S_tmin ≤ ς ≤ S_tmax, else 0;    ς̂ = (1 + γ) ς;    y ← y + √(ς̂² − ς²)
    S_noise z

with y = x/α, ς = σ/α. On the `karras` schedule y = x and ς = σ are the paper's.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from diffloom.arithmetic import weighted
from diffloom.errors import IncompatibleParts
from diffloom.grid import Grid, Level, Spacing
from diffloom.noise import Noise
from diffloom.sampler import Model, State
from diffloom.schedule import Schedule
from diffloom_solvers.heun import Heun


@dataclass(kw_only=True, eq=False)
class EDM(Heun):
    """Heun's method with churn; Heun's method itself where nothing is churned."""

    examples: ClassVar[tuple[dict[str, object], ...]] = ({}, {"churn": 20.0})

    spacing: Annotated[Spacing, Field(description="how the levels are spread over the schedule")] = "karras"
    churn: Annotated[float, Field(ge=0, description="S_churn, how much noise all steps add together")] = 0.0
    churn_min: Annotated[float, Field(ge=0, description="S_tmin, least σ/α at which noise is added")] = 0.0
    churn_max: Annotated[
        float | None, Field(gt=0, description="S_tmax, largest σ/α at which noise is added; any by default")
    ] = None
    noise_scale: Annotated[float, Field(gt=0, description="S_noise, the added noise's size")] = 1.0

    def __post_init__(self) -> None:
        """Refuse settings of churn that do nothing."""
        high = math.inf if self.churn_max is None else self.churn_max
        if self.churn == 0 and (self.churn_min > 0 or high < math.inf or self.noise_scale != 1):
            raise IncompatibleParts(
                "there is no churn whose noise could be limited or scaled",
                where="sampler.churn",
                expected="more than 0",
                got="0",
                remedy="set churn, or remove churn_min, churn_max and noise_scale",
            )
        if self.churn_min > high:
            raise IncompatibleParts(
                "no noise level lies in the window of churn",
                where="sampler.churn_min",
                expected=f"at most churn_max, {high:g}",
                got=f"{self.churn_min:g}",
                remedy="exchange them",
            )

    @property
    def stochastic(self) -> bool:
        """Whether there is churn."""
        return self.churn > 0

    def grid(self, schedule: Schedule) -> Grid:
        """Return the levels to visit; see `Sampler.grid`.

        Raises:
            IncompatibleParts: If churn is asked for at noise levels that the schedule does not have.
        """
        grid = super().grid(schedule)
        if self.churn > 0:
            low, high = (math.exp(-float(schedule.log_snr(t)) / 2) for t in (0, schedule.steps - 1))
            if self.churn_min > high or (self.churn_max is not None and self.churn_max < low):
                raise IncompatibleParts(
                    "the window of churn lies outside of the schedule's noise levels",
                    where="sampler.churn_min" if self.churn_min > high else "sampler.churn_max",
                    expected=f"σ/α within {low:.4g} … {high:.4g}",
                    got=f"{self.churn_min if self.churn_min > high else self.churn_max:g}",
                    remedy="move the window, or choose a schedule that reaches it",
                )
        return grid

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, t = grid.levels[state.index], grid.t[state.index]
        raised_t = self.raised(schedule, here, len(grid))
        if raised_t is None or raised_t <= float(t):
            return super().step(model, schedule, grid, state, noise)
        t = t.new_tensor(raised_t)
        up = Level.of(schedule, raised_t)
        added = up.sigma**2 - (up.alpha / here.alpha * here.sigma) ** 2
        std = math.sqrt(max(added, 0.0)) * self.noise_scale
        x = weighted((up.alpha / here.alpha, state.x), (std, self.draw(noise, state)))
        return State(self.advance(model, grid, state, x, t, up), state.index + 1)

    def raised(self, schedule: Schedule, here: Level, count: int) -> float | None:
        """Return the time of ς̂, at most the schedule's last; `None` where nothing is added."""
        if here.alpha == 0 or self.churn == 0:
            return None
        relative = here.sigma / here.alpha
        if relative < self.churn_min or relative > (math.inf if self.churn_max is None else self.churn_max):
            return None
        gamma = min(self.churn / count, math.sqrt(2) - 1)
        return float(schedule.time(here.log_snr - 2 * math.log1p(gamma)))
