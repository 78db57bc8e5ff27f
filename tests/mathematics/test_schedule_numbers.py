"""Published and independently computed values of the DDPM schedules (float64, direct products)."""

import math

import pytest
import torch

from diffloom.errors import IncompatibleParts
from diffloom.schedule import Schedule
from diffloom_ddpm.schedules import Cosine, Linear, ScaledLinear, Sigmoid


def alpha_bar(schedule: Schedule, t: int) -> float:
    return float(schedule.alpha(t)) ** 2


def approx(value: float, digits: int = 11) -> object:
    return pytest.approx(value, rel=10.0**-digits)


@pytest.mark.parametrize(
    ("schedule", "t", "expected"),
    [
        (Linear(), 0, 0.9999),
        (Linear(), 1, 0.999780092072),
        (Linear(), 499, 0.0785872428818),
        (Linear(), 998, 4.11819363814e-5),
        (Linear(), 999, 4.03582976538e-5),
        (Linear(steps=4000, scaled=True), 1999, 0.0789448733246),
        (Linear(steps=4000, scaled=True), 3999, 4.2466522758e-5),
        (Linear(steps=100, scaled=True), 99, 2.03900897556e-5),
        (Linear(steps=100), 99, 0.363563248),
        (Cosine(), 499, 0.493843590441),
        (Cosine(), 998, 2.42876690703e-6),
        (Cosine(), 999, 2.42876690703e-9),
        (Cosine(steps=4000), 1999, 0.493843590441),
        (ScaledLinear(), 0, 0.99915),
        (ScaledLinear(), 499, 0.277669650456),
        (ScaledLinear(), 999, 0.00466009851308),
        (ScaledLinear(beta_start=1e-4, beta_end=0.02), 499, 0.333187767356),
        (ScaledLinear(beta_start=1e-4, beta_end=0.02), 999, 7.33412459581e-4),
        (ScaledLinear(beta_start=0.0015, beta_end=0.0195), 999, 1.42303975192e-4),
        (ScaledLinear(beta_start=0.0015, beta_end=0.0155), 999, 6.6866517374e-4),
        (ScaledLinear(beta_start=0.0015, beta_end=0.0205), 999, 9.69108668115e-5),
        (Sigmoid(of="beta"), 499, 0.301931056602),
        (Sigmoid(of="beta"), 999, 3.96818199053e-5),
        (Sigmoid(), 249, 0.85085354793),
        (Sigmoid(), 499, 0.5),
        (Sigmoid(), 749, 0.14914645207),
    ],
)
def test_alpha_bar(schedule: Schedule, t: int, expected: float) -> None:
    assert alpha_bar(schedule, t) == approx(expected, 9)
    assert float(schedule.sigma(t)) ** 2 == approx(1 - expected, 8)


@pytest.mark.parametrize(
    ("schedule", "t", "expected"),
    [
        (Linear(), 0, 1e-4),
        (Linear(), 1, 1.1991991992e-4),
        (Linear(), 499, 0.01004004004),
        (Linear(), 999, 0.02),
        (Linear(steps=4000, scaled=True), 0, 2.5e-5),
        (Linear(steps=4000, scaled=True), 3999, 0.005),
        (Cosine(), 0, 4.1284224822e-5),
        (Cosine(), 499, 0.00314588623048),
        (Cosine(), 998, 0.749999392901),
        (Cosine(), 999, 0.999),
        (Cosine(steps=4000), 0, 9.86581881368e-6),
        (ScaledLinear(), 499, 0.00480379298055),
        (Sigmoid(of="beta"), 0, 1.49205200817e-4),
    ],
)
def test_beta(schedule: Schedule, t: int, expected: float) -> None:
    assert float(schedule.beta(t)) == approx(expected, 9)


def test_linear_table() -> None:
    schedule = Linear()
    every = torch.arange(1000)
    bars = schedule.alpha(every).square()
    assert float(bars.sum()) == approx(275.513233397)
    assert int((bars < 0.5).nonzero()[0]) == 259
    assert float(schedule.alpha(499)) == approx(0.280334162887)
    assert float(schedule.sigma(499)) == approx(0.959902472712)
    snr = schedule.log_snr(torch.tensor([0, 499, 999])).exp().tolist()
    assert snr == [approx(9999), approx(0.0852899444626), approx(4.03599265117e-5)]


def test_only_the_last_cosine_beta_is_limited() -> None:
    for steps in (1000, 4000):
        betas = Cosine(steps=steps).beta(torch.arange(steps))
        assert int((betas > 0.999 - 1e-9).sum()) == 1


def test_noise_levels_of_stable_diffusion() -> None:
    schedule = ScaledLinear()
    ratio = (schedule.sigma(torch.tensor([0, 999])) / schedule.alpha(torch.tensor([0, 999]))).tolist()
    assert ratio == [approx(0.0291671581517), approx(14.6146412293)]


@pytest.mark.parametrize(
    ("t", "variance"),
    [(1, 5.4531876613e-5), (2, 8.54891152309e-5), (499, 0.0100313554146), (999, 0.0199999835266), (0, 0.0)],
)
def test_posterior_variance(t: int, variance: float) -> None:
    x = torch.zeros(1, dtype=torch.float64)
    assert float(Linear().posterior(x, x, t, t - 1).variance) == approx(variance, 9)
    if t == 1:
        assert math.log(float(Linear().posterior(x, x, t, t - 1).variance)) == approx(-9.8167251353, 10)


@pytest.mark.parametrize(
    ("t", "of_x0", "of_x_t"),
    [
        (0, 1, 0),
        (1, 0.54529149951, 0.454708498991),
        (499, 0.00307007111426, 0.99410667021),
        (999, 1.28351487172e-4, 0.989948678268),
    ],
)
def test_posterior_mean(t: int, of_x0: float, of_x_t: float) -> None:
    x_t, x0 = (torch.tensor(pair, dtype=torch.float64) for pair in ([0.0, 1.0], [1.0, 0.0]))
    assert Linear().posterior(x_t, x0, t, t - 1).mean.tolist() == [approx(of_x0), approx(of_x_t)]


def test_posterior_coefficients_carry_the_signal() -> None:
    schedule = Linear()
    one = torch.ones(1000, dtype=torch.float64)
    t = torch.arange(1000)
    mean = schedule.posterior(schedule.alpha(t), one, t, t - 1).mean
    torch.testing.assert_close(mean, schedule.alpha(t - 1), rtol=1e-12, atol=0)


def test_a_worked_example() -> None:
    schedule = Linear()
    x0, eps = torch.tensor([0.5], dtype=torch.float64), torch.tensor([-1.2], dtype=torch.float64)
    x_t = schedule.diffuse(x0, 499, eps)
    assert float(x_t) == approx(-1.01171588581)
    assert float(schedule.posterior(x_t, x0, 499, 498).mean) == approx(-1.00421847488)
    beta, alpha_t = float(schedule.beta(499)), 1 - float(schedule.beta(499))
    other_route = (float(x_t) - beta / float(schedule.sigma(499)) * -1.2) / math.sqrt(alpha_t)
    assert other_route == approx(-1.00421847488)


def test_respaced_betas() -> None:
    schedule = Linear()
    times = torch.tensor([0, 20, 41, 61, 82, 102, 958, 979, 999])
    before = torch.tensor([-1, 0, 20, 41, 61, 82, 102, 958, 979])
    betas = schedule.transition(times, before)[1]
    assert float(betas[0]) == approx(1e-4)
    assert float(betas[1]) == approx(0.0061651879466, 9)
    assert float(betas[-1]) == approx(0.329809066095)
    assert float((1 - betas).prod()) == approx(alpha_bar(schedule, 999))


def test_a_scaled_schedule_needs_more_than_twenty_steps() -> None:
    with pytest.raises(IncompatibleParts, match="more than 20 steps"):
        Linear(steps=20, scaled=True).alpha(0)
    Linear(steps=21, scaled=True).alpha(0)


def test_temperature_steepens_the_sigmoid() -> None:
    # Chen 2023, algorithm 1 with start −3, end 3, τ = 0.7, evaluated at u = 1/4, 1/2, 3/4
    schedule = Sigmoid(tau=0.7)
    for t, place in ((249, -1.5), (499, 0.0), (749, 1.5)):
        low, high, here = (1 / (1 + math.exp(-x / 0.7)) for x in (-3.0, 3.0, place))
        assert alpha_bar(schedule, t) == approx((high - here) / (high - low), 9)
