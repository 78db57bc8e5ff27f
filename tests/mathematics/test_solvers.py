"""Fast samplers against closed forms: published runs, identities between methods, and measured orders."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from torch import Tensor

from diffloom.errors import IncompatibleParts
from diffloom.grid import Grid, Level, spaced
from diffloom.noise import Noise
from diffloom.prediction import Denoised
from diffloom.sampler import Sampler, State
from diffloom.schedule import Schedule
from diffloom.testing.convergence import measure, order
from diffloom.testing.oracles import DiagonalGaussian, Mixture, Oracle
from diffloom.testing.strategies import schedules
from diffloom_ddim.sampler import DDIM
from diffloom_ddpm.schedules import Linear, ScaledLinear
from diffloom_solvers.deis import DEIS, lagrange_integrals
from diffloom_solvers.dpm_solver import DPMSolverPP
from diffloom_solvers.edm import EDM
from diffloom_solvers.euler import Euler
from diffloom_solvers.euler_ancestral import EulerAncestral
from diffloom_solvers.heun import Heun
from diffloom_solvers.karras import Karras
from diffloom_solvers.pndm import IPNDM, PNDM
from diffloom_solvers.steps import towards
from diffloom_solvers.unipc import UniPC

from .fixed import Given, law, network
from .test_ancestral import chain_moments

LINEAR, SD = Linear(), ScaledLinear()


@pytest.mark.parametrize(
    ("schedule", "sampler", "expected"),
    [
        (LINEAR, DPMSolverPP(steps=10), 0.703992845905),
        (LINEAR, DPMSolverPP(steps=20), 0.777299213885),
        (LINEAR, DPMSolverPP(steps=50), 0.799596614128),
        (LINEAR, DPMSolverPP(steps=100), 0.799838474928),
        (SD, DPMSolverPP(steps=10), 0.702210263578),
        (SD, DPMSolverPP(steps=20), 0.749602234859),
        (SD, DPMSolverPP(steps=50), 0.775695136801),
        (SD, DPMSolverPP(steps=100), 0.78346411924),
        (LINEAR, DPMSolverPP(steps=10, variant="1"), 0.669249732462),
        (LINEAR, DPMSolverPP(steps=10, form="heun"), 0.708093367326),
        (LINEAR, DPMSolverPP(steps=10, variant="2s"), 0.706618985102),
        (LINEAR, UniPC(steps=10), 0.708732799996),
        (LINEAR, UniPC(steps=10, form="bh1"), 0.720144343048),
        (LINEAR, UniPC(steps=10, solver_order=3), 0.710068034751),
        (LINEAR, UniPC(steps=20), 0.778845060123),
        (LINEAR, UniPC(steps=20, solver_order=3), 0.779755824544),
        (LINEAR, PNDM(steps=10), 0.787197936843),
        (LINEAR, Euler(steps=10), 0.669249732462),
        (SD, DPMSolverPP(steps=10, form="heun"), 0.704107340705),
        (SD, DPMSolverPP(steps=10, variant="2s"), 0.70230178043),
        (SD, UniPC(steps=10), 0.705012312051),
        (SD, UniPC(steps=10, form="bh1"), 0.709188985384),
        (SD, UniPC(steps=10, solver_order=3), 0.705594631565),
        (SD, PNDM(steps=10), 0.75207382116),
    ],
)
def test_published_runs_on_gaussian_data(schedule: Schedule, sampler: Sampler, expected: float, one: Tensor) -> None:
    got = float(sampler.sample(DiagonalGaussian(schedule, 0.3, 0.5), schedule, one))
    assert got == pytest.approx(expected, abs=2e-12)


@pytest.mark.parametrize(
    ("count", "euler", "heun"),
    [
        (10, 0.663843516069, 0.907511258296),
        (18, 0.721445068521, 0.825646044612),
        (20, 0.728923360423, 0.819866703984),
        (40, 0.763107584081, 0.802983576412),
    ],
)
def test_published_runs_on_the_edm_grid(count: int, euler: float, heun: float, one: Tensor) -> None:
    schedule = Karras()
    oracle = DiagonalGaussian(schedule, 0.3, 0.5)
    assert float(oracle.flow(80 * one, 999)) == pytest.approx(0.798115271281, abs=1e-12)
    for sampler, expected in (
        (Euler(steps=count, spacing="karras"), euler),
        (DDIM(steps=count, spacing="karras"), euler),
        (Heun(steps=count, spacing="karras"), heun),
        (EDM(steps=count), heun),
    ):
        assert float(sampler.sample(oracle, schedule, 80 * one)) == pytest.approx(expected, abs=2e-11)


def errors(sampler: Sampler, oracle: Oracle, spacing: str, counts: tuple[int, ...]) -> list[float]:
    """Return the errors at level 0 of n steps from the last level, whose start is x = σ_max."""
    schedule, found = oracle.schedule, []
    last = schedule.steps - 1
    x = torch.tensor([[float(schedule.sigma(last))]], dtype=torch.float64)
    exact = oracle.flow(x, last, 0)
    for count in counts:
        times = spaced(schedule, count + 1, spacing)  # type: ignore[arg-type]
        grid, state = Grid.of(schedule, times[:-1], 0.0), State(x, 0)
        while state.index < len(grid):
            state = sampler.step(oracle, schedule, grid, state, None)
        found.append(float((state.x - exact).abs()))
    return found


@pytest.mark.parametrize("spacing", ["exponential", "karras"])
@pytest.mark.parametrize(
    ("sampler", "measured"),
    [
        (Euler(), 0.99),
        (DDIM(), 0.99),
        (Heun(), 2.0),
        (DPMSolverPP(), 1.98),
        (DPMSolverPP(form="heun"), 2.0),
        (DPMSolverPP(variant="2s"), 1.99),
        (UniPC(solver_order=1), 2.0),
        (UniPC(), 3.0),
        (UniPC(form="bh1"), 3.05),
        (UniPC(solver_order=3), 3.92),
        (PNDM(), 2.0),
        (PNDM(warmup="runge-kutta"), 2.0),
        (IPNDM(), 2.0),
        (IPNDM(solver_order=1), 0.99),
        (DEIS(solver_order=2), 2.0),
    ],
)
def test_measured_order(sampler: Sampler, measured: float, spacing: str) -> None:
    found = errors(sampler, DiagonalGaussian(Karras(sigma_min=0.1), 0.3, 0.5), spacing, (80, 160))
    slope = math.log2(found[0] / found[1])
    assert slope >= sampler.order - 0.2
    assert slope == pytest.approx(measured, abs=0.12)


def test_higher_orders_err_less() -> None:
    ladder: list[list[Sampler]] = [
        [Euler(), DPMSolverPP(variant="1")],
        [Heun(), DPMSolverPP(), DPMSolverPP(variant="2s"), PNDM()],
        [UniPC(), UniPC(form="bh1")],
        [UniPC(solver_order=3)],
    ]
    found = [[measure(sampler, [100])[0].error for sampler in rung] for rung in ladder]
    for lower, higher in pairwise(found):
        assert max(higher) < min(lower)


def test_orders_of_stochastic_samplers_are_those_of_their_moments() -> None:
    for sampler, claimed, measured in (
        (DDIM(eta=1.0), 1, 0.98),
        (EulerAncestral(), 1, 0.98),
        (DPMSolverPP(variant="1", eta=1.0), 1, 0.98),
        (DPMSolverPP(eta=1.0), 2, 1.98),
        (DPMSolverPP(variant="3m", eta=1.0), 2, 2.08),
    ):
        assert sampler.order == claimed
        assert order(measure(sampler, (80, 160))) == pytest.approx(measured, abs=0.03)
    clipped = DDIM(eta=1.0, clip=1.0)  # its steps are not affine, so its moments are not measured
    assert math.isnan(order(measure(clipped, (10, 20))))


@pytest.mark.parametrize("sampler", [DPMSolverPP(variant="3m"), DEIS()])
def test_a_first_order_start_limits_the_third_order(sampler: Sampler) -> None:
    oracle = DiagonalGaussian(Karras(sigma_min=0.1), 0.3, 0.5)
    third = errors(sampler, oracle, "exponential", (80, 160))
    second = errors(DPMSolverPP(), oracle, "exponential", (80, 160))
    assert sampler.order == 2
    assert math.log2(third[0] / third[1]) >= 1.7
    assert third[1] < 0.5 * second[1]


@pytest.mark.parametrize("sampler", [Heun(), DPMSolverPP(), UniPC(), PNDM(), DEIS(solver_order=2)])
def test_samplers_find_the_flow_of_a_mixture(sampler: Sampler) -> None:
    schedule = Karras(sigma_min=0.05, sigma_max=20.0)
    oracle = Mixture(schedule, [-1.0, 0.8], [0.4, 0.3], [0.3, 0.7])
    found = errors(sampler, oracle, "exponential", (40, 80, 160))
    slopes = [math.log2(a / b) for a, b in pairwise(found)]
    assert max(slopes) >= sampler.order - 0.3, found
    assert found[-1] < 2e-3


@law
@given(schedules(min_steps=2), st.data())
def test_first_order_methods_are_one_map(schedule: Schedule, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, schedule.steps))
    oracle = DiagonalGaussian(schedule, 0.3, 0.5)
    x = torch.tensor([[1.2], [-0.4]], dtype=torch.float64)
    wanted = DDIM(steps=count).sample(oracle, schedule, x)
    for sampler in (
        Euler(steps=count),
        DPMSolverPP(steps=count, variant="1"),
        IPNDM(steps=count, solver_order=1),
        DEIS(steps=count, solver_order=1),
    ):
        torch.testing.assert_close(sampler.sample(oracle, schedule, x), wanted, rtol=1e-9, atol=1e-9)


@law
@given(schedules(min_steps=2), st.data())
def test_first_order_stochastic_methods_are_one_map(schedule: Schedule, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, schedule.steps))
    oracle = DiagonalGaussian(schedule, 0.3, 0.5)
    x = torch.tensor([[1.2], [-0.4]], dtype=torch.float64)
    wanted = DDIM(steps=count, eta=1.0).sample(oracle, schedule, x, Noise([3, 4]))
    for sampler in (DPMSolverPP(steps=count, variant="1", eta=1.0), EulerAncestral(steps=count)):
        got = sampler.sample(oracle, schedule, x, Noise([3, 4]))
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_an_ancestral_step_of_ddim_eta_one() -> None:
    oracle, x = DiagonalGaussian(LINEAR, 0.3, 0.5), torch.tensor([[0.7]], dtype=torch.float64)
    grid = Grid.of(LINEAR, [500], 480)
    for sampler in (EulerAncestral(), DDIM(eta=1.0), DPMSolverPP(variant="1", eta=1.0)):
        mean = sampler.step(oracle, LINEAR, grid, State(x, 0), Given([torch.zeros(1, 1)])).x
        noisy = sampler.step(oracle, LINEAR, grid, State(x, 0), Given([torch.ones(1, 1)])).x
        assert float(mean) == pytest.approx(0.642933795614, abs=1e-12)
        assert float(noisy - mean) == pytest.approx(0.420265433125, abs=1e-12)


def ve(sigma: float) -> Level:
    return Level(1.0, sigma, -2 * math.log(sigma) if sigma else math.inf)


@pytest.mark.parametrize(
    ("eta", "source", "target", "down", "up"),
    [
        (1.0, 2, 1, 0.5, 0.866025403784),
        (0.5, 2, 1, 0.901387818866, 0.433012701892),
        (1.0, 14.6146412293, 8, 4.37917010728, 6.69498836231),
        (1.0, 0.03, 0, 0, 0),
    ],
)
def test_split_of_ancestral_noise(eta: float, source: float, target: float, down: float, up: float) -> None:
    got = EulerAncestral(eta=eta).split(ve(source), ve(target))
    assert got == (pytest.approx(down, abs=1e-11), pytest.approx(up, abs=1e-11))  # type: ignore[comparison-overlap]


def test_the_predictor_of_unipc_2_is_dpm_solver_2m() -> None:
    grid = Grid.of(LINEAR, [800, 500, 300])
    model = network(LINEAR)
    x = torch.tensor([[0.7]], dtype=torch.float64)
    level = grid.levels[0]
    history = model(x, grid.t[0]).x0
    memory = {"x0.1": history}
    wanted = DPMSolverPP().step(model, LINEAR, grid, State(x, 1, memory), None).x
    m = model(x, grid.t[1]).x0
    past = [(history, level.log_snr / 2)]
    got = UniPC()._move(x, m, past, grid.levels[1], grid.levels[2])
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_stochastic_multistep_keeps_the_moments() -> None:
    schedule = Linear()
    oracle = DiagonalGaussian(schedule, 0.3, 0.5)
    errors = {}
    for variant in ("1", "2m"):
        sampler = DPMSolverPP(steps=100, variant=variant, eta=1.0, spacing="log-snr")
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(20000, 1, generator=generator, dtype=torch.float64)
        draws = [torch.randn(20000, 1, generator=generator, dtype=torch.float64) for _ in range(100)]
        got = sampler.sample(oracle, schedule, x, Given(draws))
        assert float(got.mean()) == pytest.approx(0.3, abs=0.012)
        errors[variant] = abs(float(got.std()) - 0.5)
    assert errors["1"] < 0.03
    assert errors["2m"] < 0.012


def test_churn_keeps_the_moments_to_second_order() -> None:
    schedule = Karras()
    oracle = DiagonalGaussian(schedule, 0.3, 0.5)
    found = {}
    for churn in (0.0, 5.0, 20.0):
        errors = []
        for count in (80, 160):
            mean, std = chain_moments(EDM(steps=count, churn=churn), schedule, oracle, 80.0**2)
            assert mean == pytest.approx(0.3, abs=2e-3)
            errors.append(abs(std - 0.5))
        assert math.log2(errors[0] / errors[1]) >= 1.9
        found[churn] = errors
    assert found[0.0] < found[5.0] < found[20.0]
    x = torch.full((1, 1), 80.0, dtype=torch.float64)
    draws = [torch.ones(1, 1, dtype=torch.float64)] * 40
    everywhere = Given(draws)
    EDM(steps=40, churn=20.0).sample(oracle, schedule, x, everywhere)
    assert everywhere.used == 39  # the first level is the schedule's last and cannot be raised
    window = Given(draws)
    EDM(steps=40, churn=20.0, churn_min=0.05, churn_max=50.0).sample(oracle, schedule, x, window)
    assert 0 < window.used < 39


def test_churn_raises_the_noise_by_gamma() -> None:
    schedule, sampler = Karras(), EDM(steps=10, churn=3.0)
    raised = sampler.raised(schedule, Level.of(schedule, 500), 10)
    assert raised is not None
    assert float(schedule.sigma(raised) / schedule.sigma(500)) == pytest.approx(1.3, rel=1e-12)
    most = EDM(steps=10, churn=50.0).raised(schedule, Level.of(schedule, 500), 10)
    assert most is not None
    assert float(schedule.sigma(most) / schedule.sigma(500)) == pytest.approx(math.sqrt(2), rel=1e-12)


def test_the_noise_of_churn_is_scaled() -> None:
    schedule, x = Karras(), torch.full((1, 1), 5.0, dtype=torch.float64)
    oracle, grid = DiagonalGaussian(schedule, 0.3, 0.5), Grid.of(schedule, [500], 400)
    found = {}
    for scale, z in ((1.0, 0.0), (1.0, 1.0), (1.5, 1.0)):
        sampler, noise = EDM(churn=0.2, noise_scale=scale), Given([torch.full((1, 1), z, dtype=torch.float64)])
        found[scale, z] = float(sampler.step(oracle, schedule, grid, State(x, 0), noise).x)
    added = found[1.0, 1.0] - found[1.0, 0.0]
    assert added > 0
    assert found[1.5, 1.0] - found[1.0, 0.0] == pytest.approx(1.5 * added, rel=1e-9)


def test_heun_evaluates_twice_but_for_the_last_step() -> None:
    asked: list[float] = []

    def model(x: Tensor, t: Tensor) -> Denoised:
        asked.append(float(t))
        return network(LINEAR)(x, t)

    Heun(steps=7).sample(model, LINEAR, torch.ones(1, 1))
    assert len(asked) == 13


def test_lagrange_integrals_against_quadrature() -> None:
    nodes = [0.7, 1.1, 1.6]
    got = lagrange_integrals(nodes, 0.7, -0.4)
    for k, weight in enumerate(got):
        others = [node for j, node in enumerate(nodes) if j != k]

        def basis(u: float, k: int = k, others: list[float] = others) -> float:
            return math.prod((u - o) / (nodes[k] - o) for o in others) * math.exp(u)

        assert weight == pytest.approx(integrate.quad(basis, 0.7, -0.4)[0], abs=1e-12)


def test_first_order_step_at_both_ends() -> None:
    noise, clean = Level(0.0, 1.0, -math.inf), Level(1.0, 0.0, math.inf)
    for eta in (0.0, 1.0):
        step = towards(noise, clean, eta)
        assert (step.keep, step.pull, step.std) == (0, 1, 0)
    middle = Level(0.6, 0.8, 2 * math.log(0.75))
    assert towards(noise, middle, 1.0).std == pytest.approx(0.8)
    assert towards(noise, middle).keep == pytest.approx(0.8)


def test_a_stochastic_singlestep_solver_is_refused() -> None:
    with pytest.raises(IncompatibleParts, match="singlestep variant is deterministic"):
        DPMSolverPP(variant="2s", eta=1.0)
