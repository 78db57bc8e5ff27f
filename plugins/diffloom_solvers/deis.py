"""DEIS: Adams–Bashforth with exact weights for any spacing (Zhang & Chen 2023, arXiv 2204.13902, "ρAB" in ln ρ).

With ρ = σ/α the flow is d(x/α) = ε dρ. ε is taken as the polynomial in u = ln ρ through the latest
estimates, and integrated exactly:  x_s/α_s = x_t/α_t + Σ_k ε_k ∫ ℓ_k(u) e^u du, ℓ_k the Lagrange polynomials.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from diffloom.arithmetic import Coefficient, weighted
from diffloom.grid import Grid
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule
from diffloom_solvers.steps import finite_past, place, recall, remember


@dataclass(kw_only=True, eq=False)
class DEIS(Sampler):
    """DEIS; its first step is of first order, which limits the whole to second order."""

    solver_order: Annotated[int, Field(ge=1, le=3, description="how many evaluations are combined")] = 3

    def __post_init__(self) -> None:
        """Claim the order."""
        self.order = min(self.solver_order, 2)

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here)
        history = recall(state, "eps")
        past = finite_past(grid, state, history)
        memory = remember("eps", [said.eps, *history], self.solver_order - 1)
        if not past or there.sigma == 0:
            return State(place(said, there), state.index + 1, memory)
        nodes = [-here.log_snr / 2, *(-level.log_snr / 2 for _, level in past)]
        weights = lagrange_integrals(nodes, -here.log_snr / 2, -there.log_snr / 2)
        terms: list[tuple[Coefficient, Tensor]] = [(there.alpha / here.alpha, state.x), (0.0, said.eps)]
        for weight, eps in zip(weights, [said.eps, *(value for value, _ in past)], strict=True):
            terms.append((there.alpha * weight, eps))
        return State(weighted(*terms), state.index + 1, memory)


def lagrange_integrals(nodes: Sequence[float], start: float, stop: float) -> list[float]:
    """Return ∫_start^stop ℓ_k(u) e^u du for each Lagrange polynomial ℓ_k of the nodes, in closed form.

    A polynomial p has ∫ p e^u du = e^u (p − p′ + p″ − …), taken here around `start` so that nothing cancels.
    """
    found = []
    for k, node in enumerate(nodes):
        others = [other for j, other in enumerate(nodes) if j != k]
        shifted = [1.0]  # coefficients of Π (v + start − other), v = u − start, lowest power first
        for other in others:
            raised = [0.0, *shifted]
            shifted = [a + (start - other) * b for a, b in zip(raised, [*shifted, 0.0], strict=True)]
        integral = sum(c * _moment(power, stop - start) for power, c in enumerate(shifted))
        found.append(math.exp(start) * integral / math.prod(node - other for other in others))
    return found


def _moment(power: int, length: float) -> float:
    """Return ∫_0^length v^power e^v dv."""
    value = math.expm1(length)
    for k in range(1, power + 1):
        value = length**k * math.exp(length) - k * value
    return value
