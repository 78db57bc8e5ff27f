"""The oracles against their own definitions: numerical integration, gradients, and each other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffloom.schedule import Schedule
from diffloom.testing.oracles import DiagonalGaussian, FullGaussian, Mixture, Oracle, PointMass
from diffloom.testing.standins import vp
from diffloom.testing.strategies import schedules

from .fixed import law

MIX = ([-1.0, 0.6], [0.3, 0.5], [0.4, 0.6])


def log_density(schedule: Schedule, x: Tensor, t: int) -> Tensor:
    """Return ln q_t(x) of the mixture, up to a constant, by integration over x_0."""
    x0 = torch.linspace(-6, 6, 24001, dtype=torch.float64)
    prior = torch.zeros_like(x0)
    for mean, std, weight in zip(*MIX, strict=True):
        prior = prior + weight / std * torch.exp(-0.5 * ((x0 - mean) / std) ** 2)
    likelihood = torch.exp(-0.5 * ((x - schedule.alpha(t) * x0) / schedule.sigma(t)) ** 2)
    return torch.trapezoid(prior * likelihood, x0).log()


@pytest.mark.parametrize("t", [5, 40, 60, 95])
def test_the_mixture_is_what_integration_gives(t: int) -> None:
    schedule = vp()
    oracle = Mixture(schedule, *MIX)
    for value in (-1.5, 0.1, 2.0):
        x = torch.tensor([[value]], dtype=torch.float64)
        moved = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        (score,) = torch.autograd.grad(log_density(schedule, moved, t), moved)
        assert float(oracle.score(x, t)) == pytest.approx(float(score), abs=1e-7)
        said = oracle(x, torch.tensor(float(t)))
        again = schedule.alpha(t) * said.x0 + schedule.sigma(t) * said.eps
        torch.testing.assert_close(again, x)


@pytest.mark.parametrize("path", ["vp", "ve", "flow"])
def test_flows_follow_their_velocity(path: str) -> None:
    """The flow's derivative is that of the ODE d(x/α) = ε d(σ/α)."""

    @settings(law, max_examples=6)
    @given(schedules(min_steps=8, paths=[path], zero_terminal_snr=False), st.floats(-2, 2))  # type: ignore[list-item]
    def check(schedule: Schedule, start: float) -> None:
        t, step = 3.4, 1e-4
        x = torch.full((1, 1), start, dtype=torch.float64)
        oracles: list[Oracle] = [Mixture(schedule, *MIX), DiagonalGaussian(schedule, 0.3, 0.5)]
        for oracle in oracles:
            ahead, behind = oracle.flow(x, t, t + step), oracle.flow(x, t, t - step)
            moved = ahead / schedule.alpha(t + step) - behind / schedule.alpha(t - step)
            noise = schedule.sigma(t + step) / schedule.alpha(t + step)
            noise = noise - schedule.sigma(t - step) / schedule.alpha(t - step)
            eps = oracle(x, torch.tensor(t, dtype=torch.float64)).eps
            torch.testing.assert_close(moved / noise, eps, rtol=1e-4, atol=1e-5)

    check()


def test_flows_compose_and_turn_back() -> None:
    schedule = vp()
    x = torch.tensor([[-2.0, -0.3, 0.4, 1.9]], dtype=torch.float64)
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    full = FullGaussian(schedule, torch.tensor([0.1, -0.4], dtype=torch.float64), covariance)
    for oracle, start in (
        (Mixture(schedule, *MIX), x),
        (DiagonalGaussian(schedule, 0.3, 0.5), x),
        (full, x.view(2, 2)),
    ):
        whole = oracle.flow(start, 99, -1)
        torch.testing.assert_close(oracle.flow(oracle.flow(start, 99, 40), 40, -1), whole, rtol=0, atol=1e-9)
        torch.testing.assert_close(oracle.flow(whole, -1, 99), start, rtol=0, atol=1e-6)


def test_special_cases_agree() -> None:
    schedule = vp()
    t = torch.tensor(50.0)
    x = torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    diagonal = DiagonalGaussian(schedule, torch.tensor([0.3, 0.1]), torch.tensor([0.5, 0.8]))
    full = FullGaussian(
        schedule,
        torch.tensor([0.3, 0.1]).double(),
        torch.diag(torch.tensor([0.5, 0.8]).square()).double(),
    )
    torch.testing.assert_close(full(x, t).x0, diagonal(x, t).x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(full.flow(x, 50), diagonal.flow(x, 50), rtol=1e-6, atol=1e-6)
    single = Mixture(schedule, [0.3], [0.5])
    gaussian = DiagonalGaussian(schedule, 0.3, 0.5)
    torch.testing.assert_close(single(x, t).x0, gaussian(x, t).x0)
    torch.testing.assert_close(single.flow(x, 50), gaussian.flow(x, 50))
    torch.testing.assert_close(PointMass(schedule, 0.2)(x, t).x0, torch.full_like(x, 0.2))
    per_item = gaussian(torch.cat([x, x]), torch.tensor([50.0, 3.0]))
    torch.testing.assert_close(per_item.x0[:1], gaussian(x, t).x0)
