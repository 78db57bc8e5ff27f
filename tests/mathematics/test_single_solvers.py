"""What is particular to single solvers: PNDM's weights and evaluations, LCM's levels and boundary."""

import pytest
import torch
from torch import Tensor

from diffloom.arithmetic import weighted
from diffloom.grid import Grid
from diffloom.prediction import Denoised
from diffloom.sampler import State
from diffloom_ddpm.schedules import Linear
from diffloom_solvers.lcm import LCM
from diffloom_solvers.pndm import IPNDM, PNDM, WEIGHTS
from diffloom_solvers.steps import transfer

from .fixed import network

LINEAR = Linear()


def test_adams_bashforth_weights_sum_to_one() -> None:
    assert [sum(row) for row in WEIGHTS] == pytest.approx([1] * 4)


@pytest.mark.parametrize(("warmup", "evaluations"), [("plms", 11), ("runge-kutta", 19)])
def test_evaluations_of_pndm(warmup: str, evaluations: int) -> None:
    asked: list[float] = []

    def model(x: Tensor, t: Tensor) -> Denoised:
        asked.append(float(t))
        return network(LINEAR)(x, t)

    sampler = PNDM(steps=10, spacing="leading", warmup=warmup)  # type: ignore[arg-type]
    sampler.sample(model, LINEAR, torch.ones(1, 1))
    assert len(asked) == evaluations
    plms = [900, 800, *range(800, -1, -100)]
    kutta = [900, 850, 850, 800, 800, 750, 750, 700, 700, 650, 650, *range(600, -1, -100)]
    assert asked == (plms if warmup == "plms" else [*kutta[:11], 600, *kutta[11:]])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_combines_as_many_evaluations_as_it_says(order: int) -> None:
    sampler, model = IPNDM(steps=7, solver_order=order, final="first"), network(LINEAR)
    grid = sampler.grid(LINEAR)
    state, eps = State(torch.full((1, 1), 0.7, dtype=torch.float64), 0), list[Tensor]()
    for index in range(len(grid)):
        eps.insert(0, model(state.x, grid.t[index]).eps)
        weights = WEIGHTS[min(order, len(eps)) - 1]
        combined = weighted(*((weight, value) for weight, value in zip(weights, eps, strict=False)))
        wanted = transfer(state.x, combined, *grid.levels[index : index + 2])
        state = sampler.step(model, LINEAR, grid, state, None)
        torch.testing.assert_close(state.x, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("count", "times"),
    [
        (1, [999]),
        (2, [999, 499]),
        (4, [999, 759, 499, 259]),
        (8, [999, 879, 759, 639, 499, 379, 259, 139]),
    ],
)
def test_levels_of_lcm(count: int, times: list[int]) -> None:
    assert LCM(steps=count).grid(LINEAR).t.tolist() == times


def test_boundary_of_lcm() -> None:
    assert LCM().boundary(999) == pytest.approx((2.50500750374e-9, 0.999999998747), rel=1e-11)
    assert LCM().boundary(19) == pytest.approx((6.92515979806e-6, 0.999996537414), rel=1e-11)
    assert LCM().boundary(0) == (1, 0)
    assert not LCM(steps=1).stochastic


def test_a_consistency_model_leaves_clean_data_alone() -> None:
    x, grid = torch.full((1, 1), 0.7, dtype=torch.float64), Grid.of(LINEAR, [0])
    assert float(LCM().step(network(LINEAR), LINEAR, grid, State(x, 0), None).x) == pytest.approx(0.7, abs=1e-15)
