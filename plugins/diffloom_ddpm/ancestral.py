"""Ancestral sampling: x_s ~ N(μ̃(x_t, x̂_0), σ² I), level by level on any grid (Ho et al. 2020, algorithm 2).

The mean is that of the exact posterior q(x_s | x_t, x_0) with x_0 replaced by its (possibly clipped)
estimate; on a grid that skips levels it is the posterior of the respaced chain. The step to clean data
draws nothing.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.arithmetic import weighted, working_dtype
from diffloom.errors import IncompatibleParts
from diffloom.grid import Grid, Spacing
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule

Variance = Literal["fixed-small", "fixed-large", "learned-range"]


@dataclass(kw_only=True, eq=False)
class Ancestral(Sampler):
    """DDPM's sampler.

    `fixed-small` is the posterior's variance β̃ (right for a single datum), `fixed-large` the transition's
    β (right for standard normal data; wants many steps), `learned-range` lies between, where the network's
    second half of channels says (Nichol & Dhariwal 2021, eq. 15).
    """

    examples: ClassVar[tuple[dict[str, object], ...]] = ({}, {"variance": "fixed-large"})

    steps: Annotated[int | None, Field(gt=0, description="how many levels to visit; all of them by default")] = None
    spacing: Annotated[Spacing, Field(description="how the levels are spread over the schedule")] = "linspace"
    variance: Annotated[Variance, Field(description="variance of the noise that each step adds")] = "fixed-small"

    @property
    def stochastic(self) -> bool:
        """Always true."""
        return True

    @property
    def needs_spread(self) -> bool:
        """Whether the variance is learned."""
        return self.variance == "learned-range"

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        t, s = grid.times[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], grid.levels[state.index])
        posterior = schedule.posterior(state.x, said.x0, t, s)
        if grid.levels[state.index + 1].sigma == 0:  # z = 0 in the last step
            return State(posterior.mean, state.index + 1)
        z = self.draw(noise, state)
        small, large = float(posterior.variance), float(schedule.transition(t, s)[1])
        if self.variance == "learned-range":
            std = learned_std(said.spread, small, large)
            x = (posterior.mean.to(std.dtype) + std * z.to(std.dtype)).to(state.x.dtype)
        else:
            variance = small if self.variance == "fixed-small" else large
            x = weighted((1.0, posterior.mean), (math.sqrt(variance), z))
        return State(x, state.index + 1)


def learned_std(spread: Tensor | None, small: float, large: float) -> Tensor:
    """Return the standard deviation between two bounds: ln σ² = f ln β + (1 − f) ln β̃, f = (spread + 1)/2.

    Args:
        spread: What the network says, (B, C, …); not limited to [−1, 1].
        small: β̃ > 0.
        large: β.

    Raises:
        IncompatibleParts: If the network says nothing about its variance.
    """
    if spread is None:
        raise IncompatibleParts(
            "the sampler asks for a learned variance, and the denoiser gives none",
            where="sampler.variance",
            expected="an output with twice the data's channels",
            got="an output with the data's channels",
            remedy="use variance: fixed-small, or a denoiser that learns its variance",
        )
    fraction = (spread.to(working_dtype(spread)) + 1) / 2
    return torch.exp(0.5 * (math.log(small) + fraction * (math.log(large) - math.log(small))))
