"""DDPM's sampler against closed forms, published figures and another library."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.prediction import Denoised
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule
from diffloom.testing.oracles import DiagonalGaussian, PointMass
from diffloom_ddpm.ancestral import Ancestral, Variance, learned_std
from diffloom_ddpm.schedules import Cosine, Linear, ScaledLinear

from .fixed import Constant, Given, formula, network, start


def chain_moments(sampler: Sampler, schedule: Schedule, model: Model, variance: float = 1.0) -> tuple[float, float]:
    """Return mean and std of x_0 from N(0, variance), for a model that is affine in x: steps are probed."""
    grid = sampler.grid(schedule)
    probes = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    noise = Constant(torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64))
    mean = 0.0
    for index in range(len(grid)):
        at_zero, at_one, noisy = sampler.step(model, schedule, grid, State(probes, index), noise).x.flatten().tolist()
        mean = at_zero + (at_one - at_zero) * mean
        variance = (at_one - at_zero) ** 2 * variance + (noisy - at_zero) ** 2
    return mean, math.sqrt(variance)


@pytest.mark.parametrize(("variance", "std"), [("fixed-small", 0.496110), ("fixed-large", 0.500752)])
def test_the_full_chain_keeps_gaussian_data(variance: Variance, std: float) -> None:
    schedule = Linear()
    got = chain_moments(Ancestral(variance=variance), schedule, DiagonalGaussian(schedule, 0.3, 0.5))
    assert got[0] == pytest.approx(0.299997, abs=1e-6)
    assert got[1] == pytest.approx(std, abs=1e-6)


@pytest.mark.parametrize(("spread", "log_variance"), [(-1, -4.60203955009), (0, -4.60160686338), (1, -4.60117417667)])
def test_learned_variance_lies_between_the_bounds(spread: float, log_variance: float) -> None:
    schedule = Linear()
    small = float(schedule.posterior(torch.zeros(1), torch.zeros(1), 499, 498).variance)
    std = learned_std(torch.tensor([spread], dtype=torch.float64), small, float(schedule.beta(499)))
    assert 2 * math.log(float(std)) == pytest.approx(log_variance, rel=1e-11)


def test_learned_variance_is_used_by_the_step() -> None:
    schedule, x = Linear(), torch.zeros(2, 1, 1, 1, dtype=torch.float64)

    def model(x_t: Tensor, t: Tensor) -> Denoised:
        spread = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
        return Denoised(torch.zeros_like(x_t), torch.zeros_like(x_t), spread)

    noise = Constant(torch.ones_like(x))
    steps = {}
    for variance in ("learned-range", "fixed-small", "fixed-large"):
        sampler = Ancestral(variance=variance)
        steps[variance] = sampler.step(model, schedule, sampler.grid(schedule), State(x, 500), noise).x
    assert float(steps["learned-range"][0]) == pytest.approx(float(steps["fixed-small"][0]), rel=1e-12)
    assert float(steps["learned-range"][1]) == pytest.approx(float(steps["fixed-large"][1]), rel=1e-12)


def test_learned_variance_needs_a_network_that_learns_it() -> None:
    schedule = Linear(steps=5, beta_end=0.5)
    with pytest.raises(IncompatibleParts, match="twice the data's channels"):
        Ancestral(variance="learned-range").sample(PointMass(schedule, 0.0), schedule, torch.ones(1, 1), Noise([0]))


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), ScaledLinear()])
@pytest.mark.parametrize("count", [1, 7, 100])
def test_a_point_is_found_exactly(schedule: Schedule, count: int, one: Tensor) -> None:
    for variance in ("fixed-small", "fixed-large"):
        x = Ancestral(steps=count, variance=variance).sample(PointMass(schedule, 0.7), schedule, one, Noise([3]))
        assert float(x) == pytest.approx(0.7, abs=1e-12)


def test_the_last_step_draws_nothing() -> None:
    schedule, noise = Linear(), Given([torch.ones(1, 1)] * 9)
    Ancestral(steps=10, variance="fixed-large").sample(PointMass(schedule, 0.0), schedule, torch.ones(1, 1), noise)
    assert noise.used == 9


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_parity_with_diffusers(variance: Variance, clip: float | None, name: str) -> None:
    theirs = DDPMScheduler(
        beta_schedule=name,
        variance_type=variance.replace("-", "_"),
        clip_sample=clip is not None,
        beta_start=1e-4,
        beta_end=0.02,
    )
    theirs.set_timesteps(20)
    ours = {
        "linear": Linear(),
        "scaled_linear": ScaledLinear(beta_start=1e-4, beta_end=0.02),
        "squaredcos_cap_v2": Cosine(),
    }[name]
    sampler = Ancestral(steps=20, spacing="leading", variance=variance, clip=clip)
    assert sampler.grid(ours).t.tolist() == theirs.timesteps.tolist()
    generator, draws = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    x = start()
    noise = Given([torch.randn(x.shape, generator=draws) for _ in range(20)])
    got = sampler.sample(network(ours), ours, x, noise)
    for t in theirs.timesteps:
        x = theirs.step(formula(x, t), t, x, generator=generator).prev_sample
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4 * float(x.abs().max()))
