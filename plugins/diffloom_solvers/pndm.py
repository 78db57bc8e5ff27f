"""PNDM: Adams–Bashforth weights for the noise estimate, moved by the DDIM map (Liu et al. 2022, arXiv 2202.09778).

    ε′ = (55 ε_0 − 59 ε_1 + 37 ε_2 − 9 ε_3)/24,    x_s = transfer(x_t, ε′)

The first steps have no history: `plms` redoes the first with the mean of both ends (one evaluation more),
`runge-kutta` makes three steps of four evaluations, half way in time, and `none` starts with lower orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from diffloom.arithmetic import weighted
from diffloom.grid import Grid, Level
from diffloom.noise import Noise
from diffloom.prediction import Denoised
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule
from diffloom_solvers.steps import finite_past, place, recall, remember, transfer

WEIGHTS: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Adams–Bashforth, order 1 to 4, latest first; each row sums to 1."""


@dataclass(kw_only=True, eq=False)
class PNDM(Sampler):
    """Pseudo numerical method for diffusion models; deterministic.

    The weights are those of even steps in σ/α, which grids do not make: the whole is of second order.
    """

    examples: ClassVar[tuple[dict[str, object], ...]] = ({}, {"warmup": "runge-kutta"})
    order = 2

    warmup: Annotated[
        Literal["plms", "runge-kutta"], Field(description="how the first steps are made, without history")
    ] = "plms"

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here)
        history = recall(state, "eps")
        if here.alpha == 0:  # at zero SNR only x̂_0 and ε̂ together say where to go
            return State(place(said, there), state.index + 1)
        last = state.index + 1 == len(grid)
        if self.warmup == "runge-kutta" and len(history) < 3 and not last:
            eps = self._runge_kutta(model, schedule, grid, state, said)
        elif self.warmup == "plms" and not history and not last:
            reached = transfer(state.x, said.eps, here, there)
            ahead = self.denoise(model, reached, grid.t[state.index + 1], there)
            eps = weighted((0.5, said.eps), (0.5, ahead.eps))
        else:
            eps = combined(said.eps, history)
        memory = remember("eps", [said.eps, *history], 3)
        return State(transfer(state.x, eps, here, there), state.index + 1, memory)

    def _runge_kutta(self, model: Model, schedule: Schedule, grid: Grid, state: State, said: Denoised) -> Tensor:
        """Return (ε_1 + 2 ε_2 + 2 ε_3 + ε_4)/6 over the step (Liu et al. 2022, eq. 13)."""
        here, there = grid.levels[state.index : state.index + 2]
        t = (grid.t[state.index] + grid.t[state.index + 1]) / 2
        middle = Level.of(schedule, float(t))
        second = self.denoise(model, transfer(state.x, said.eps, here, middle), t, middle).eps
        third = self.denoise(model, transfer(state.x, second, here, middle), t, middle).eps
        reached = transfer(state.x, third, here, there)
        fourth = self.denoise(model, reached, grid.t[state.index + 1], there).eps
        return weighted((1 / 6, said.eps), (1 / 3, second), (1 / 3, third), (1 / 6, fourth))


@dataclass(kw_only=True, eq=False)
class IPNDM(Sampler):
    """PNDM that starts with lower orders instead of a warm-up: exactly one evaluation a step (Zhang & Chen 2023)."""

    solver_order: Annotated[int, Field(ge=1, le=4, description="how many evaluations are combined")] = 4

    def __post_init__(self) -> None:
        """Claim the order; see `PNDM`."""
        self.order = min(self.solver_order, 2)

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here)
        history = recall(state, "eps")
        past = [value for value, _ in finite_past(grid, state, history)]
        memory = remember("eps", [said.eps, *history], self.solver_order - 1)
        if not past:
            return State(place(said, there), state.index + 1, memory)
        x = transfer(state.x, combined(said.eps, past), here, there)
        return State(x, state.index + 1, memory)


def combined(eps: Tensor, history: Sequence[Tensor]) -> Tensor:
    """Return the Adams–Bashforth combination of the latest estimate with up to three earlier ones."""
    values = [eps, *history][: len(WEIGHTS)]
    return weighted(*zip(WEIGHTS[len(values) - 1], values, strict=True))
