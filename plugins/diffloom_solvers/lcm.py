"""LCM: few-step sampling of a consistency model, which needs a distilled network (Luo et al. 2023, arXiv 2310.04378).

Each step jumps to data, f = c_out x̂_0 + c_skip x_t with c_skip = σ_d²/(τ² + σ_d²), c_out = τ/√(τ² + σ_d²),
τ = s t, and diffuses f anew to the next level: x_s = α_s f + σ_s z. The last step returns f.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from diffloom.arithmetic import weighted
from diffloom.errors import IncompatibleParts
from diffloom.grid import Grid
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule


@dataclass(kw_only=True, eq=False)
class LCM(Sampler):
    """The sampler of latent consistency models; its levels are among those that distillation used."""

    expected_failures: ClassVar = {
        "point-is-found": "the boundary condition keeps part of x_t, which a consistency model has learnt",
        "gaussian-data-keep-their-moments": "the posterior mean is not a consistency model",
        "claimed-order": "the posterior mean is not a consistency model",
    }

    steps: Annotated[int | None, Field(gt=0, description="how many levels to visit, 1 to 8 usually")] = 4
    origin_steps: Annotated[int, Field(gt=0, description="levels that distillation used")] = 50
    scaling: Annotated[float, Field(gt=0, description="s, from times to the boundary's τ")] = 10.0
    sigma_data: Annotated[float, Field(gt=0, description="σ_d of the boundary condition")] = 0.5

    @property
    def stochastic(self) -> bool:
        """Whether there is more than one step."""
        return self.steps != 1 if self.timesteps is None else len(self.timesteps) > 1

    def grid(self, schedule: Schedule) -> Grid:
        """Return `steps` of the levels j T/origin − 1, evenly chosen from the noisiest down; spacing is not used.

        Where more steps are asked for than distillation had levels, there are as many origin levels as steps.
        """
        total = schedule.steps
        count = total if self.steps is None else self.steps
        if self.timesteps is not None or count > total:
            return super().grid(schedule)
        origin = min(total, max(self.origin_steps, count))
        levels = [j * (total // origin) - 1 for j in range(origin, 0, -1)]
        times = [levels[i * origin // count] for i in range(count)]
        if self.final != "clean":
            raise IncompatibleParts(
                "a consistency model jumps to clean data",
                where="sampler.final",
                expected="clean",
                got=self.final,
                remedy="remove it",
            )
        return Grid.of(schedule, torch.tensor(times, dtype=torch.float64, device="cpu"))

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here)
        skip, out = self.boundary(grid.times[state.index])
        x = weighted((out, said.x0), (skip, state.x))
        if there.sigma > 0:
            x = weighted((there.alpha, x), (there.sigma, self.draw(noise, state)))
        return State(x, state.index + 1)

    def boundary(self, t: float) -> tuple[float, float]:
        """Return (c_skip, c_out) at time t: (1, 0) at t = 0 (Luo et al. 2023, eq. 9)."""
        tau = self.scaling * t
        size = tau**2 + self.sigma_data**2
        return self.sigma_data**2 / size, tau / math.sqrt(size)
