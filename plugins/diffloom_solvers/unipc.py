"""UniPC: a multistep predictor, and a corrector that costs no evaluation of its own (Zhao et al. 2023).

At a new point the network is asked once. Its answer first corrects the step that led there, then predicts
the next one. The corrector raises the order by one, so `solver_order` q measures as q + 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.arithmetic import Coefficient, weighted
from diffloom.grid import Grid, Level
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule
from diffloom_solvers.steps import finite_past, gain, recall, remember, towards


@dataclass(kw_only=True, eq=False)
class UniPC(Sampler):
    """UniPC in the clean estimate, B(h) = h (`bh1`) or e^h − 1 (`bh2`)."""

    examples: ClassVar[tuple[dict[str, object], ...]] = ({}, {"solver_order": 3}, {"form": "bh1"})

    solver_order: Annotated[int, Field(ge=1, le=3, description="order of the predictor")] = 2
    form: Annotated[Literal["bh1", "bh2"], Field(description="the function B(h); bh2 is better with guidance")] = "bh2"

    def __post_init__(self) -> None:
        """Claim the predictor's order."""
        self.order = self.solver_order

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        m = self.denoise(model, state.x, grid.t[state.index], here).x0
        history = recall(state, "x0")
        x = state.x
        if history:
            before = State(state.memory["x"], state.index - 1)
            start = grid.levels[state.index - 1]
            past = self._past(grid, before, history[1:], start)
            x = self._move(before.x, history[0], past, start, here, arrived=m)
        past = self._past(grid, state, history, here)
        memory = {**remember("x0", [m, *history], self.solver_order), "x": x}
        return State(self._move(x, m, past, here, there), state.index + 1, memory)

    def _past(self, grid: Grid, state: State, history: Sequence[Tensor], here: Level) -> list[tuple[Tensor, float]]:
        """Return (estimate, λ) of the earlier levels that a step uses: order min(q, steps made + 1).

        Towards clean data, infinitely far in λ, the order is lowered to the number of steps that are left.
        """
        left = len(grid) - state.index if grid.levels[-1].sigma == 0 else self.solver_order
        count = min(self.solver_order, left) - 1
        if not math.isfinite(gain(here, grid.levels[state.index + 1])):
            return []
        return [(value, level.log_snr / 2) for value, level in finite_past(grid, state, history[:count])]

    def _move(
        self,
        x: Tensor,
        m: Tensor,
        past: Sequence[tuple[Tensor, float]],
        here: Level,
        there: Level,
        arrived: Tensor | None = None,
    ) -> Tensor:
        """Return x brought from `here` to `there`: the predictor, or the corrector if the estimate there is given.

        Zhao et al. 2023, eqs. 3 and 8, in the clean estimate:
        x_s = (σ_s/σ_t) x_t + α_s (1 − e^{−h}) m − α_s B Σ ρ_k (m_k − m)/r_k.
        """
        step = towards(here, there)
        terms: list[tuple[Coefficient, Tensor]] = [(step.keep, x), (step.pull, m)]
        h = gain(here, there)
        if not math.isfinite(h):
            return weighted(*terms)
        nodes = [(log - here.log_snr / 2) / h for _, log in past]
        values = [value for value, _ in past]
        if arrived is not None:
            nodes.append(1.0)
            values.append(arrived)
        scale = -h if self.form == "bh1" else math.expm1(-h)
        for weight, node, value in zip(_weights(nodes, h, scale), nodes, values, strict=True):
            share = -there.alpha * scale * weight / node
            terms += [(share, value), (-share, m)]
        return weighted(*terms)


def _weights(nodes: Sequence[float], h: float, scale: float) -> list[float]:
    """Return ρ that solves Σ_k r_k^{j−1} ρ_k = b_j, j = 1 … len(nodes); ½ for a single node, as the authors choose.

    b_j = φ_{j+1}(−h) j!/B with φ_{j+1}(z) = (φ_j(z) − 1/j!)/z (Zhao et al. 2023, theorem 3.1).
    """
    if len(nodes) <= 1:
        return [0.5] * len(nodes)
    phi, factorial, right = math.expm1(-h) / -h - 1, 1.0, []
    for j in range(1, len(nodes) + 1):
        right.append(phi * factorial / scale)
        factorial *= j + 1
        phi = phi / -h - 1 / factorial
    powers = torch.tensor([[node**j for node in nodes] for j in range(len(nodes))], dtype=torch.float64)
    solved = torch.linalg.solve(powers, torch.tensor(right, dtype=torch.float64))
    return [float(weight) for weight in solved]
