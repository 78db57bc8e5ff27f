"""DPM-Solver++: exponential integrators in the clean estimate (Lu et al. 2022b, arXiv 2211.01095).

With λ = log-SNR/2 and h the gain of a step, the flow is exactly

    x_s = (σ_s/σ_t) x_t + α_s ∫ e^{−(λ_s − λ)} x̂_0(λ) dλ

and the variants differ in the polynomial that stands for x̂_0(λ). η > 0 gives the stochastic solvers, which
replace part of the noise in every step (η = 1 is "SDE-DPM-Solver++").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from diffloom.arithmetic import Coefficient, weighted
from diffloom.errors import IncompatibleParts
from diffloom.grid import Grid, Level
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule
from diffloom_solvers.steps import Towards, finite_past, gain, recall, remember, towards

_SHORT = 15
"""Below so many steps the last but one is of second order at most, as the third order is not stable there."""


@dataclass(kw_only=True, eq=False)
class DPMSolverPP(Sampler):
    """DPM-Solver++.

    `1` is DDIM. `2m` and `3m` remember one and two evaluations; `2s` evaluates twice a step, the second
    time half way in log-SNR. The first step of `3m` is of first order, which limits the whole to second
    order. The step to clean data returns the clean estimate.
    """

    examples: ClassVar[tuple[dict[str, object], ...]] = (
        {},
        {"variant": "3m"},
        {"variant": "2s"},
        {"form": "heun"},
        {"variant": "3m", "eta": 1.0},
    )

    variant: Annotated[
        Literal["1", "2m", "3m", "2s"], Field(description="order, and m for multistep or s for singlestep")
    ] = "2m"
    form: Annotated[
        Literal["midpoint", "heun"], Field(description="of 2m: which second-order formula, of equal order")
    ] = "midpoint"
    eta: Annotated[float, Field(ge=0, description="η: 0 solves the flow, 1 the stochastic equation")] = 0.0

    def __post_init__(self) -> None:
        """Check that the variant can be what is asked for, and claim the order."""
        if self.variant != "2m" and self.form != "midpoint":
            raise IncompatibleParts(
                "only one variant comes in two forms",
                where="sampler.form",
                expected=f"none with variant: {self.variant}",
                got=self.form,
                remedy="remove form, or use variant: 2m",
            )
        if self.variant == "2s" and self.eta > 0:
            raise IncompatibleParts(
                "the singlestep variant is deterministic",
                where="sampler.eta",
                expected="0",
                got=f"{self.eta:g}",
                remedy="use variant: 2m for a stochastic solver",
            )
        self.order = 1 if self.variant == "1" else 2

    @property
    def stochastic(self) -> bool:
        """Whether η > 0."""
        return self.eta > 0

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here)
        step = towards(here, there, self.eta)
        history = recall(state, "x0")
        if self.variant == "2s":
            terms: list[tuple[Coefficient, Tensor]] = [
                (step.pull, self._half_way(model, schedule, state.x, said.x0, here, there))
            ]
        else:
            past = finite_past(grid, state, history[: self._memory(len(grid) - state.index, len(grid))])
            terms = self._extrapolated(step, said.x0, past, here, there)
        terms.append((step.keep, state.x))
        if step.std > 0:
            terms.append((step.std, self.draw(noise, state)))
        memory = remember("x0", [said.x0, *history], self._memory(_SHORT, _SHORT))
        return State(weighted(*terms), state.index + 1, memory)

    def _memory(self, left: int, count: int) -> int:
        """Return how many earlier evaluations a step uses when `left` of `count` steps are to be made."""
        wanted = {"1": 0, "2m": 1, "3m": 2, "2s": 0}[self.variant]
        return min(wanted, left - 1) if count < _SHORT else wanted

    def _extrapolated(
        self, step: Towards, m: Tensor, past: Sequence[tuple[Tensor, Level]], here: Level, there: Level
    ) -> list[tuple[Coefficient, Tensor]]:
        """Return the weighted estimates of a multistep formula (Lu et al. 2022b, algorithm 2; appendix of 3M).

        Differences are D_1 ≈ h m′ and D_2 ≈ h² m″/2, as divided differences over the earlier levels.
        """
        terms: list[tuple[Coefficient, Tensor]] = [(step.pull, m)]
        if not past or not math.isfinite(step.length):
            return terms
        h = gain(here, there)
        r0 = gain(past[0][1], here) / h
        first = weighted((1 / r0, m), (-1 / r0, past[0][0]))
        curve = there.alpha * (math.expm1(-step.length) / step.length + 1)
        if len(past) == 1:
            return [*terms, (curve if self.form == "heun" else step.pull / 2, first)]
        r1 = gain(past[1][1], past[0][1]) / h
        before = weighted((1 / r1, past[0][0]), (-1 / r1, past[1][0]))
        second = weighted((1 / (r0 + r1), first), (-1 / (r0 + r1), before))
        first = weighted((1.0, first), (r0, second))
        return [*terms, (curve, first), (there.alpha / 2 - curve / step.length, second)]

    def _half_way(self, model: Model, schedule: Schedule, x: Tensor, m: Tensor, here: Level, there: Level) -> Tensor:
        """Return the clean estimate half way in log-SNR; `m` itself where half way is no place (2S, r = ½)."""
        middle = (here.log_snr + there.log_snr) / 2
        if not math.isfinite(middle):
            return m
        t = schedule.time(middle)
        level = Level.of(schedule, float(t))
        step = towards(here, level)
        reached = weighted((step.keep, x), (step.pull, m))
        return self.denoise(model, reached, t, level).x0
