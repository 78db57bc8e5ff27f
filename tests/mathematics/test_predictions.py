"""Every meaning of a network's output says the same thing, and converts to every other."""

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffloom.errors import IncompatibleParts
from diffloom.prediction import Denoised, Prediction, require_defined, target
from diffloom.schedule import Schedule
from diffloom.testing.strategies import schedules
from diffloom_ddpm.schedules import Linear

from .fixed import law

KINDS = get_args(Prediction)


def example(schedule: Schedule, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(t.numel(), 2, 3, generator=generator, dtype=torch.float64) * 2 - 1
    eps = torch.randn(t.numel(), 2, 3, generator=generator, dtype=torch.float64)
    return x0, eps, schedule.diffuse(x0, t, eps)


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_gives_back_data_and_noise_at_every_time(kind: Prediction) -> None:
    schedule, t = Linear(), torch.arange(1000)
    x0, eps, x_t = example(schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    said = Denoised.from_output(kind, target(kind, x0, eps, alpha, sigma), x_t, alpha, sigma)
    torch.testing.assert_close(said.x0, x0, rtol=0, atol=1e-9)
    torch.testing.assert_close(said.eps, eps, rtol=0, atol=1e-9)
    torch.testing.assert_close(said.to_output(kind, alpha, sigma), target(kind, x0, eps, alpha, sigma))


@law
@given(schedules(zero_terminal_snr=False), st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_conversions_invert_on_every_path(schedule: Schedule, one: Prediction, other: Prediction) -> None:
    t = torch.arange(schedule.steps)
    x0, eps, x_t = example(schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    first = target(one, x0, eps, alpha, sigma)
    second = Denoised.from_output(one, first, x_t, alpha, sigma).to_output(other, alpha, sigma)
    again = Denoised.from_output(other, second, x_t, alpha, sigma).to_output(one, alpha, sigma)
    torch.testing.assert_close(again, first, rtol=1e-9, atol=1e-9)


@law
@given(schedules(zero_terminal_snr=False), st.sampled_from(KINDS))
def test_the_score_converts_to_every_kind_and_back(schedule: Schedule, kind: Prediction) -> None:
    t = torch.arange(schedule.steps)
    _, eps, x_t = example(schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    score = -eps / sigma[:, None, None]
    output = Denoised.from_score(score, x_t, alpha, sigma).to_output(kind, alpha, sigma)
    again = Denoised.from_output(kind, output, x_t, alpha, sigma).score(sigma)
    torch.testing.assert_close(again, score, rtol=1e-9, atol=1e-9)


@law
@given(schedules(zero_terminal_snr=True, paths=["vp", "flow", "other"]))
def test_all_but_noise_are_defined_where_no_data_is_left(schedule: Schedule) -> None:
    t = torch.tensor([schedule.steps - 1])
    x0, eps, x_t = example(schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    for kind in ("x0", "v", "flow"):
        said = Denoised.from_output(kind, target(kind, x0, eps, alpha, sigma), x_t, alpha, sigma)
        torch.testing.assert_close(said.x0, x0)
        torch.testing.assert_close(said.eps, eps)
        require_defined(kind, schedule)
    with pytest.raises(IncompatibleParts, match="prediction: v"):
        require_defined("eps", schedule)


def test_a_worked_example() -> None:
    schedule = Linear()
    x0, eps = torch.full((1, 1), 0.5, dtype=torch.float64), torch.full((1, 1), -1.2, dtype=torch.float64)
    x_t = schedule.diffuse(x0, 499, eps)
    alpha, sigma = schedule.alpha(499), schedule.sigma(499)
    assert float(target("v", x0, eps, alpha, sigma)) == pytest.approx(-0.816352231821, rel=1e-11)
    said = Denoised.from_output("eps", eps, x_t, alpha, sigma)
    assert float(said.score(sigma)) == pytest.approx(1.25012700156, rel=1e-11)
    again = Denoised.from_score(said.score(sigma), x_t, alpha, sigma)
    assert float(again.x0) == pytest.approx(0.5, rel=1e-12)


def test_errors_of_the_kinds_are_proportional() -> None:
    schedule, t = Linear(), torch.tensor([0, 250, 999])
    x0, eps, x_t = example(schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    wrong = Denoised.from_eps(eps + 0.1, x_t, alpha, sigma)
    errors = {
        kind: (wrong.to_output(kind, alpha, sigma) - target(kind, x0, eps, alpha, sigma)).square().sum((1, 2))
        for kind in KINDS
    }
    snr = alpha**2 / sigma**2
    torch.testing.assert_close(errors["eps"], snr * errors["x0"])
    torch.testing.assert_close(errors["v"], errors["eps"] / alpha**2)
    torch.testing.assert_close(errors["v"], (snr + 1) * errors["x0"])


def test_twice_the_channels_are_mean_and_spread() -> None:
    x_t, spread = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    said = Denoised.from_output("eps", torch.cat([torch.zeros_like(x_t), spread], 1), x_t, 0.5, 0.5)
    assert said.spread is not None
    assert torch.equal(said.spread, spread)
    torch.testing.assert_close(said.x0, 2 * x_t)


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (2, 3, 4, 5), (1, 3, 4, 4)])
def test_an_output_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(IncompatibleParts, match="does not fit what it looked at"):
        Denoised.from_output("eps", torch.zeros(shape), torch.zeros(2, 3, 4, 4), 0.5, 0.5)


def test_clipping_with_and_without_new_noise() -> None:
    x_t = torch.tensor([[2.0, 0.1]], dtype=torch.float64)
    said = Denoised.from_eps(torch.zeros_like(x_t), x_t, 0.8, 0.6)
    kept = said.clipped(1.0, x_t, 0.8, 0.6, rederive=False)
    fresh = said.clipped(1.0, x_t, 0.8, 0.6)
    assert kept.x0.tolist() == fresh.x0.tolist() == [[1.0, 0.125]]
    assert torch.equal(kept.eps, said.eps)
    torch.testing.assert_close(0.8 * fresh.x0 + 0.6 * fresh.eps, x_t)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_type_of_the_data_is_kept(dtype: torch.dtype) -> None:
    x_t, output = torch.randn(2, 3, 4, dtype=dtype), torch.randn(2, 3, 4, dtype=dtype)
    schedule = Linear()
    for t in (torch.tensor(500), torch.tensor([3, 999])):
        for kind in KINDS:
            said = Denoised.from_output(kind, output, x_t, schedule.alpha(t), schedule.sigma(t))
            assert (said.x0.dtype, said.eps.dtype) == (dtype, dtype)
