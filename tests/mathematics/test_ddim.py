"""DDIM against its published equations, the exact flow of Gaussian data, and another library."""

import math
from itertools import pairwise
from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffloom.grid import Grid, Spacing
from diffloom.noise import Noise
from diffloom.prediction import Denoised, Prediction
from diffloom.sampler import State
from diffloom.schedule import Schedule
from diffloom.testing.oracles import DiagonalGaussian, PointMass
from diffloom.testing.strategies import schedules
from diffloom_ddim.inversion import encode, slerp
from diffloom_ddim.sampler import DDIM
from diffloom_ddpm.ancestral import Ancestral
from diffloom_ddpm.schedules import Cosine, Linear, ScaledLinear

from .fixed import Given, formula, law, network, start
from .test_ancestral import chain_moments

X, EPS = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[-0.4]], dtype=torch.float64)


def constant(schedule: Schedule) -> object:
    return lambda x, t: Denoised.from_eps(EPS.expand_as(x), x, schedule.alpha(t), schedule.sigma(t))


def approx(value: float) -> object:
    return pytest.approx(value, rel=2e-11, abs=1e-15)


@pytest.mark.parametrize(
    ("t", "p", "posterior", "large"),
    [
        (999, 998, 0.141421297995, 0.141421356237),
        (999, 979, 0.574284350785, 0.574290053975),
        (980, 960, 0.569741376306, 0.569749460315),
        (500, 480, 0.420265433125, 0.424210314594),
        (20, 0, 0.00992036102998, None),
        (1, 0, 0.00738457017117, None),
        (0, -1, 0.0, 0.01),
        (19, -1, 0.0, 0.0759542514534),
    ],
)
def test_noise_of_a_step(t: int, p: int, posterior: float, large: float | None) -> None:
    grid = Grid.of(Linear(), [t], p)
    for eta in (0.0, 0.5, 1.0):
        assert DDIM(eta=eta).coefficients(*grid.levels)[1] == approx(eta * posterior)
    if large is not None:
        assert DDIM(noise="large").coefficients(*grid.levels)[1] == approx(large)


@pytest.mark.parametrize(
    ("t", "p", "eta0", "eta1"),
    [(980, 960, 0.999956292518, 0.821770862875), (500, 480, 0.95138388837, 0.853526958432)],
)
def test_coefficient_of_the_noise_estimate(t: int, p: int, eta0: float, eta1: float) -> None:
    levels = Grid.of(Linear(), [t], p).levels
    assert DDIM().coefficients(*levels)[0] == approx(eta0)
    assert DDIM(eta=1.0).coefficients(*levels)[0] == approx(eta1)
    assert DDIM(noise="large").coefficients(*levels)[0] == approx(eta1)


@pytest.mark.parametrize(
    ("t", "p", "std"),
    [
        (981, 961, 0.454463272414),
        (501, 481, 0.294784540277),
        (21, 1, 0.0394795461409),
        (1, 0, 0.0206483201653),
    ],
)
def test_noise_of_a_step_of_stable_diffusion(t: int, p: int, std: float) -> None:
    assert DDIM(eta=1.0).coefficients(*Grid.of(ScaledLinear(), [t], p).levels)[1] == approx(std)


@pytest.mark.parametrize(
    ("t", "p", "eta", "mean"),
    [
        (500, 480, 0.0, 0.816629679161),
        (500, 480, 0.5, 0.826028162987),
        (500, 480, 1.0, 0.855772451136),
        (980, 960, 0.0, 0.93849826586),
        (980, 960, 1.0, 1.00977243772),
    ],
)
def test_mean_of_a_step(t: int, p: int, eta: float, mean: float) -> None:
    schedule = Linear()
    grid = Grid.of(schedule, [t], p)
    noise = Given([torch.zeros(1, 1)])
    got = DDIM(eta=eta).step(constant(schedule), schedule, grid, State(X, 0), noise)  # type: ignore[arg-type]
    assert float(got.x) == approx(mean)
    assert noise.used == (eta > 0)
    if eta == 1:
        said = constant(schedule)(X, grid.t[0])  # type: ignore[operator]
        assert float(schedule.posterior(X, said.x0, t, p).mean) == approx(mean)


@pytest.mark.parametrize(("rederive", "expected"), [(True, 0.725171334739), (False, -0.0725459305226)])
def test_a_clipped_step(rederive: bool, expected: float) -> None:
    schedule = Linear()
    sampler, grid = DDIM(clip=1.0, rederive=rederive), Grid.of(schedule, [500], 480)
    got = sampler.step(constant(schedule), schedule, grid, State(X, 0), None)  # type: ignore[arg-type]
    assert float(got.x) == approx(expected)


@law
@given(schedules(min_steps=2), st.data())
def test_eta_one_is_the_posterior_of_ddpm_on_every_path(schedule: Schedule, data: st.DataObject) -> None:
    p = data.draw(st.integers(-1, schedule.steps - 2))
    t = data.draw(st.integers(p + 1, schedule.steps - 1))
    grid = Grid.of(schedule, [t], p)
    model = DiagonalGaussian(schedule, 0.3, 0.5)
    posterior = schedule.posterior(X, model(X, grid.t[0]).x0, t, p)
    for z in (0.0, 1.0):
        draw = [torch.tensor([[z]])]
        got = DDIM(eta=1.0).step(model, schedule, grid, State(X, 0), Given(draw)).x
        torch.testing.assert_close(got, posterior.sample(draw[0].double()), rtol=1e-9, atol=1e-12)
        other = Ancestral().step(model, schedule, grid, State(X, 0), Given(draw)).x
        torch.testing.assert_close(got, other, rtol=1e-9, atol=1e-12)


@law
@given(schedules(min_steps=2), st.floats(0, 1), st.data())
def test_every_eta_keeps_the_marginal_variance(schedule: Schedule, eta: float, data: st.DataObject) -> None:
    p = data.draw(st.integers(-1, schedule.steps - 2))
    levels = Grid.of(schedule, [data.draw(st.integers(p + 1, schedule.steps - 1))], p).levels
    direction, std = DDIM(eta=eta).coefficients(*levels)
    assert direction**2 + std**2 == pytest.approx(levels[1].sigma ** 2, rel=1e-9)


TABLE = {
    "linear": {10: 0.669249732462, 20: 0.730545406383, 50: 0.770504252608, 100: 0.784521915181},
    "sd": {10: 0.67739546728, 20: 0.725482714296, 50: 0.760244533302, 100: 0.773861298085},
}


@pytest.mark.parametrize("name", list(TABLE))
def test_the_published_path_through_gaussian_data(name: str, one: Tensor) -> None:
    schedule, exact = {"linear": (Linear(), 0.799054630217), "sd": (ScaledLinear(), 0.790618387082)}[name]
    oracle = DiagonalGaussian(schedule, 0.3, 0.5)
    assert float(oracle.flow(one, 999)) == approx(exact)
    for count, value in TABLE[name].items():
        assert float(DDIM(steps=count).sample(oracle, schedule, one)) == pytest.approx(value, abs=2e-12)


@pytest.mark.parametrize(
    ("count", "small", "large"), [(50, 0.444100081758, 0.511719391101), (10, 0.333475062093, 0.493900866263)]
)
def test_moments_of_the_stochastic_chains(count: int, small: float, large: float) -> None:
    schedule = Linear()
    oracle = DiagonalGaussian(schedule, 0.3, 0.5)
    for sampler, std in (
        (DDIM(steps=count, eta=1.0), small),
        (DDIM(steps=count, noise="large"), large),
        (Ancestral(steps=count, spacing="trailing"), small),
        (Ancestral(steps=count, spacing="trailing", variance="fixed-large"), large),
    ):
        got = chain_moments(sampler, schedule, oracle)
        assert got[0] == pytest.approx(0.299996973036, rel=1e-10)
        assert got[1] == approx(std)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), ScaledLinear()])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_a_point_is_found_exactly(schedule: Schedule, count: int, one: Tensor) -> None:
    for sampler in (DDIM(steps=count), DDIM(steps=count, eta=0.7), DDIM(steps=count, noise="large")):
        x = sampler.sample(PointMass(schedule, 0.7), schedule, one, Noise([3]))
        assert float(x) == pytest.approx(0.7, abs=1e-12)


@pytest.mark.parametrize(("t", "q", "expected"), [(500, 520, 0.590665676042)])
def test_a_step_of_encoding(t: int, q: int, expected: float) -> None:
    schedule = Linear()
    grid = Grid.of(schedule, [q], t)
    x0 = (X - schedule.sigma(t) * EPS) / schedule.alpha(t)
    assert float(schedule.alpha(q) * x0 + schedule.sigma(q) * EPS) == approx(expected)
    assert float(encode(constant(schedule), grid, X, ask="ahead")) == approx(expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("ask", ["here", "ahead"])
def test_decoding_a_code_gives_back_the_data_to_first_order(ask: str, one: Tensor) -> None:
    schedule = Linear()
    oracle = DiagonalGaussian(schedule, 0.3, 0.5)
    datum, errors, against_flow = 0.8 * one, [], []
    for count in (50, 100, 200, 400):
        sampler = DDIM(steps=count, spacing="linspace")
        code = encode(oracle, sampler.grid(schedule), datum, ask=ask)  # type: ignore[arg-type]
        errors.append(abs(float(sampler.sample(oracle, schedule, code) - datum)))
        against_flow.append(abs(float(code - oracle.flow(datum, -1, 999))))
    for figures in (errors, against_flow):
        slopes = [math.log2(a / b) for a, b in pairwise(figures)]
        assert slopes[-1] == pytest.approx(1, abs=0.25), figures


def test_slerp_walks_the_sphere() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    y = y * (x.flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)).view(3, 1, 1, 1)
    torch.testing.assert_close(slerp(x, y, 0.0), x)
    torch.testing.assert_close(slerp(x, y, 1.0), y)
    half = slerp(x, y, torch.tensor([0.5, 0.25, 0.75]))
    torch.testing.assert_close(half.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    cosine = (half[0] * x[0]).sum() / x[0].norm() ** 2
    torch.testing.assert_close(cosine.acos() * 2, ((x[0] * y[0]).sum() / x[0].norm() ** 2).acos())
    torch.testing.assert_close(slerp(x, x, 0.3), x)
    torch.testing.assert_close(slerp(x, torch.zeros_like(x), 0.25), 0.75 * x)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rederive", [False, True])
@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_parity_with_diffusers(eta: float, rederive: bool, kind: Prediction, clip: float | None) -> None:
    words = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
    theirs = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=clip is not None, prediction_type=words[kind])
    theirs.set_timesteps(20)
    schedule = Linear()
    sampler = DDIM(steps=20, spacing="leading", eta=eta, clip=clip, rederive=rederive)
    x = start()
    draws = [start(seed) for seed in range(1, 21)]
    got = sampler.sample(network(schedule, kind), schedule, x, Given(draws))
    for t, z in zip(theirs.timesteps, draws, strict=True):
        step = theirs.step(
            formula(x, t), t, x, eta=eta, use_clipped_model_output=rederive, variance_noise=z if eta else None
        )
        x = step.prev_sample
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4 * float(x.abs().max()))


def diffusers_ddim(spacing: str, count: int, x: Tensor) -> Tensor:
    """Return the x_0 that diffusers finds for Gaussian data."""
    theirs = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False, timestep_spacing=spacing)
    theirs.set_timesteps(count)
    oracle = DiagonalGaussian(Linear(), 0.3, 0.5)
    for t in theirs.timesteps:
        x = theirs.step(oracle(x, t).eps, t, x).prev_sample
    return x


@pytest.mark.xfail(strict=True, reason="diffusers' trailing grid is made with floats: it has n + 1 levels and −1")
@pytest.mark.parametrize("count", [61, 103])
def test_diffusers_trailing_grids_have_n_levels(count: int) -> None:
    theirs = DDIMScheduler(timestep_spacing="trailing")
    theirs.set_timesteps(count)
    assert len(theirs.timesteps) == count


@pytest.mark.xfail(strict=True, reason="diffusers steps to t − T//n, which is not the next level of a linspace grid")
@pytest.mark.parametrize("count", [5, 10, 50])
def test_diffusers_follows_its_own_grid(count: int, one: Tensor) -> None:
    x = diffusers_ddim("linspace", count, one)
    ours = DDIM(steps=count, spacing="linspace").sample(DiagonalGaussian(Linear(), 0.3, 0.5), Linear(), one)
    torch.testing.assert_close(x, ours, rtol=0, atol=1e-3)


@pytest.mark.xfail(
    strict=True, reason="diffusers steps to t − T//n, which is not the next level where n does not divide T"
)
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_diffusers_comes_closer_with_more_steps(spacing: str, one: Tensor) -> None:
    exact = DiagonalGaussian(Linear(), 0.3, 0.5).flow(one, 999)
    errors = [float((diffusers_ddim(spacing, count, one) - exact).abs()) for count in (200, 600)]
    assert errors[1] < errors[0]


def test_ours_comes_closer_with_more_steps(one: Tensor) -> None:
    oracle = DiagonalGaussian(Linear(), 0.3, 0.5)
    for spacing in get_args(Spacing):
        samplers = [DDIM(steps=count, spacing=spacing) for count in (100, 200)]
        flows = [oracle.flow(one, sampler.grid(Linear()).times[0]) for sampler in samplers]
        found = [sampler.sample(oracle, Linear(), one) for sampler in samplers]
        errors = [float((x - flow).abs()) for x, flow in zip(found, flows, strict=True)]
        assert errors[1] < errors[0] / 1.7
