"""The variational bound against closed forms: Gaussian data, whose reverse process is known exactly."""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.prediction import Denoised
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.testing.strategies import Tabled
from diffloom_ddpm.gaussian import Bins
from diffloom_ddpm.generate import Generate
from diffloom_ddpm.likelihood import Bound, Reverse, Variance, bound, prior_bits, rate_distortion
from diffloom_ddpm.schedules import Linear, ScaledLinear

from .parts import Conditioning, Given, Label, Listener, Oracle, alpha_bars, betas, four, system

LINEAR = Linear(steps=1000)
LN_2 = math.log(2)


def images(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


@cache
def gaussian_bound(variance: Variance, *, mean: float = 0.0, steps: int | None = None) -> Bound:
    built = system(Oracle(LINEAR, mean=mean, std=0.5), Generate(), LINEAR)
    x0, noise = four(mean)
    return bound(built, {"image": x0}, noise, variance=variance, steps=steps)


def flow() -> Schedule:
    """A straight path that ends in pure noise."""
    sigma = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    return Tabled(alpha=1 - sigma, sigma=sigma)


def steps_of(times: Tensor) -> Iterator[tuple[int, int]]:
    return zip(times[1:].tolist(), times[:-1].tolist(), strict=True)


@pytest.mark.parametrize(
    ("variance", "total", "first"),
    [("fixed-small", 6.30243687593, 0.864382611), ("fixed-large", 5.64564104177, 0.568190493)],
)
def test_divergences_of_gaussian_data_have_their_closed_form(variance: Variance, total: float, first: float) -> None:
    found = gaussian_bound(variance, mean=0.3)
    assert found.kl.mean().item() == pytest.approx(total, abs=1e-9)
    assert found.terms[:, 1].mean().item() == pytest.approx(first, abs=1e-9)


def test_divergences_of_a_shorter_chain_have_their_closed_form() -> None:
    found = gaussian_bound("fixed-small", steps=50)
    assert found.times[:6].tolist() == [0, 20, 41, 61, 82, 102]
    assert found.times[-3:].tolist() == [958, 979, 999]
    for column, (t, s) in enumerate(steps_of(found.times), 1):
        bar, before = alpha_bars(LINEAR, t)[0], alpha_bars(LINEAR, s)[0]
        beta = 1 - bar / before
        small, pull = beta * (1 - before) / (1 - bar), math.sqrt(before) * beta / (1 - bar)
        left = 0.25 * (1 - bar) / (0.25 * bar + 1 - bar)
        wanted = 0.5 * pull**2 * left / small / LN_2
        assert found.terms[:, column].mean().item() == pytest.approx(wanted, rel=1e-8)


def test_bound_of_the_exact_gaussian_model_is_the_likelihood_itself() -> None:
    """With the right variance the reverse chain is exact, so nothing is lost but the tiny L_T and the bins."""
    space, schedule = Space(1, (1, 1), low=-4.0, high=4.0), Linear(steps=200, beta_end=0.1)
    built = system(Oracle(schedule, mean=0.3, learned=True), Generate(bins=2**16), schedule, space=space)
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    values = (-0.9, 0.3, 1.1)
    noise = Given(images([*nodes] * len(values)))
    batch = {"image": images([value for value in values for _ in nodes])}
    found = built.task.bits_per_dim(built, batch, noise)  # type: ignore[operator]
    totals = (found["total"].view(3, -1).numpy() * weights).sum(1) / weights.sum()
    wanted = [-math.log2(norm.pdf(value, 0.3, 0.5) * 8 / (2**16 - 1)) for value in values]
    assert totals.tolist() == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
@pytest.mark.parametrize("steps", [20, 200])
def test_bound_lies_above_the_likelihood_of_its_own_chain(variance: Variance, steps: int) -> None:
    found = gaussian_bound(variance, mean=0.3, steps=steps)
    mean, var = 0.0, 1.0
    for t, s in reversed(list(steps_of(found.times))):
        bar, before = alpha_bars(LINEAR, t)[0], alpha_bars(LINEAR, s)[0]
        beta = 1 - bar / before
        small = beta * (1 - before) / (1 - bar)
        c1, c2 = math.sqrt(before) * beta / (1 - bar), math.sqrt(bar / before) * (1 - before) / (1 - bar)
        gain = 0.25 * math.sqrt(bar) / (0.25 * bar + 1 - bar)
        slope, base = c1 * gain + c2, c1 * 0.3 * (1 - gain * math.sqrt(bar))
        mean, var = slope * mean + base, slope**2 * var + (small if variance == "fixed-small" else beta)
    bar = alpha_bars(LINEAR, 0)[0]
    gain = 0.25 * math.sqrt(bar) / (0.25 * bar + 1 - bar)
    decoder = Reverse.of(LINEAR, torch.tensor(0), torch.tensor(-1), steps_pair(found)).small.exp().item()
    mean, var = gain * mean + 0.3 * (1 - gain * math.sqrt(bar)), gain**2 * var + decoder
    width = 100 / 255
    x0, _ = four(0.3)
    truth = [
        -math.log2(norm.cdf(v + width / 2, mean, var**0.5) - norm.cdf(v - width / 2, mean, var**0.5))
        for v in x0.flatten().tolist()
    ]
    assert found.total.mean().item() > float(np.mean(truth))


def steps_pair(found: Bound) -> tuple[int, int]:
    return int(found.times[1]), int(found.times[0])


def test_reconstruction_uses_the_borrowed_variance() -> None:
    x0 = images([5 / 255])
    built = system(Oracle(LINEAR, std=1e3), Generate(), LINEAR, space=Space(1, (1, 1)))
    found = bound(built, {"image": x0}, Given(images([1.0])), steps=1000)
    guess = (5 / 255 * math.sqrt(0.9999) + 0.01) / math.sqrt(0.9999)
    sigma = math.sqrt(5.4531876613e-5)
    edges = [(5 / 255 + sign / 255 - guess) / sigma for sign in (-1, 1)]
    wanted = -math.log2(norm.cdf(edges[1]) - norm.cdf(edges[0]))
    assert found.reconstruction.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("schedule", "square", "wanted"),
    [(LINEAR, 1.0, 2.91129454e-5), (LINEAR, 0.25, 7.27867696e-6), (ScaledLinear(), 1.0, 0.0033694)],
)
def test_prior_has_its_published_numbers(schedule: Schedule, square: float, wanted: float) -> None:
    x0 = torch.full((2, 3, 2, 2), math.sqrt(square), dtype=torch.float64)
    torch.testing.assert_close(
        prior_bits(schedule, x0), torch.full((2,), wanted, dtype=torch.float64), rtol=2e-5, atol=0
    )


def test_prior_of_a_schedule_without_signal_is_free() -> None:
    path = flow()
    assert prior_bits(path, images([0.7])).item() == 0


def test_log_variance_lies_where_the_network_says() -> None:
    step = Reverse.of(LINEAR, torch.tensor(499), torch.tensor(498))
    x = torch.zeros(3, 1, dtype=torch.float64)
    found = step.log_variance("learned-range", torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64), x)
    wanted = [-4.60203955009, -4.60160686338, -4.60117417667]
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-11, atol=0)


def test_last_step_borrows_the_variance_of_the_one_before() -> None:
    step = Reverse.of(LINEAR, torch.tensor([0, 1]), torch.tensor([-1, 0]))
    torch.testing.assert_close(step.small, torch.full((2,), -9.8167251353, dtype=torch.float64))
    assert step.pull[0] == 1
    assert step.large[0].item() == pytest.approx(math.log(1e-4))
    assert step.log_variance("fixed-large", None, step.small).tolist() == pytest.approx(
        [-9.8167251353, math.log(1.1991991992e-4)]
    )


def test_learned_variance_needs_a_network_that_learns_it() -> None:
    with pytest.raises(IncompatibleParts, match="learned variance"):
        gaussian_bound("learned-range", steps=2)


@pytest.mark.parametrize(
    ("i", "variance", "wanted"),
    [
        (1, "fixed-large", 0.272692084278),
        (1, "fixed-small", 0.599671512159),
        (499, "fixed-large", 0.00550343192562),
        (499, "fixed-small", 0.00550819651055),
        (999, "fixed-large", 0.0102044934686),
        (999, "fixed-small", 0.0102045018738),
    ],
)
def test_bound_weighs_errors_of_the_noise_as_published(i: int, variance: Variance, wanted: float) -> None:
    step = Reverse.of(LINEAR, torch.tensor(i), torch.tensor(i - 1))
    x0, eps = images([0.5]), images([-1.2])
    x_t = LINEAR.diffuse(x0, i, eps)
    bits = [
        step.bits(x0, Denoised.from_eps(said, x_t, LINEAR.alpha(i), LINEAR.sigma(i)), variance, Bins())
        for said in (eps, eps + 1)
    ]
    assert (bits[1] - bits[0]).item() * LN_2 == pytest.approx(wanted, rel=1e-9)


def test_progressive_coding_of_gaussian_data() -> None:
    found = gaussian_bound("fixed-small")
    curve = rate_distortion(found, Bins(-50.0, 50.0))
    assert curve.times[0] == 999
    assert curve.times[-1] == 0
    assert bool((curve.rate.diff() > 0).all())
    assert bool((curve.distortion.diff() < 0).all())
    assert curve.rate[0].item() == pytest.approx(found.prior.mean().item())
    assert curve.rate[-1].item() == pytest.approx((found.prior + found.kl).mean().item())
    bar = alpha_bars(LINEAR, 499)[0]
    wanted = math.sqrt(0.25 * (1 - bar) / (0.25 * bar + 1 - bar)) * 2.55
    assert curve.distortion[500].item() == pytest.approx(wanted, rel=1e-9)


def test_clipping_only_helps_data_within_their_limits() -> None:
    space = Space(1, (1, 1))
    built = system(Oracle(LINEAR, std=3.0), Generate(), LINEAR, space=space)
    batch, noise = {"image": images([1.0, -1.0, 0.2])}, Noise(range(3))
    clipped, free = (bound(built, batch, noise, steps=30, clip=clip) for clip in (True, False))
    assert bool((clipped.squared_error <= free.squared_error).all())
    assert float(clipped.total.sum()) < float(free.total.sum())


def test_task_answers_what_the_bound_is_made_of() -> None:
    oracle = Oracle(LINEAR, mean=0.3)
    built = system(oracle, Generate(variance="fixed-large"), LINEAR)
    x0, noise = four(0.3)
    found = built.task.bits_per_dim(built, {"image": x0}, noise, steps=40)  # type: ignore[operator]
    assert set(found) == {"total", "prior", "kl", "reconstruction"}
    assert all(part.shape == (4,) for part in found.values())
    torch.testing.assert_close(found["total"], found["prior"] + found["kl"] + found["reconstruction"])
    torch.testing.assert_close(found["kl"], gaussian_bound("fixed-large", mean=0.3, steps=40).kl)


def test_network_is_asked_once_per_level_with_every_condition() -> None:
    label, listener = Label(), Listener()
    built = system(listener, Generate(), LINEAR, digit=(label, Conditioning(drop=1.0, guidance=3.0)))
    batch = {"image": torch.zeros(3, 1, 1, 1), "label": torch.arange(3)}
    bound(built, batch, Noise(range(3)), steps=7)
    assert len(listener.heard) == 7
    for condition in listener.heard:
        assert condition is not None
        assert condition.vector is not None
        assert condition.vector.flatten().tolist() == [0, 1, 2]


def test_items_do_not_depend_on_their_batch() -> None:
    built = system(Oracle(LINEAR), Generate(), LINEAR)
    batch = {"image": torch.linspace(-1, 1, 4).view(4, 1, 1, 1)}
    whole = bound(built, batch, Noise(range(4)), steps=10)
    part = bound(built, {"image": batch["image"][2:]}, Noise([2, 3]), steps=10)
    torch.testing.assert_close(whole.total[2:], part.total)


def test_schedules_without_signal_at_their_end_have_a_finite_bound() -> None:
    path = flow()
    built = system(Oracle(path, kind="v"), Generate(), path, prediction="v")
    x0, noise = four()
    assert bool(torch.isfinite(bound(built, {"image": x0}, noise).total).all())


def test_only_pixels_have_a_likelihood() -> None:
    built = system(Oracle(LINEAR), Generate(), LINEAR, space=Space(1, (1, 1), low=None, high=None))
    with pytest.raises(IncompatibleParts, match="identity autoencoder"):
        bound(built, {"image": images([0.0])}, Noise([0]))


@pytest.mark.parametrize("steps", [1, 1001])
def test_number_of_steps_must_fit(steps: int) -> None:
    with pytest.raises(IncompatibleParts, match=r"2 … 1000"):
        gaussian_bound("fixed-small", steps=steps)


def test_betas_here_are_the_schedules_own() -> None:
    wanted = [float(LINEAR.beta(t)) for t in (0, 1, 499, 999)]
    assert [betas(LINEAR)[t] for t in (0, 1, 499, 999)] == pytest.approx(wanted, rel=1e-12)
