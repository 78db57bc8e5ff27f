"""Divergences of normals, and normals cut into bins."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from diffloom_ddpm.gaussian import Bins, discretised_log_likelihood, log_density, normal_kl

LOGVAR = -9.8167251353
PIXELS = Bins()


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def pixel(value: int) -> float:
    return value / 127.5 - 1


def test_divergence_of_two_normals() -> None:
    found = normal_kl(number(0), number(0), number(1), number(math.log(2)))
    assert found.item() == pytest.approx(0.34657359028, abs=1e-11)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(*[st.floats(-3, 3)] * 4)
def test_divergence_is_the_integral_of_the_log_ratio(m1: float, lv1: float, m2: float, lv2: float) -> None:
    std = math.exp(lv1 / 2)
    x = torch.linspace(m1 - 12 * std, m1 + 12 * std, 20001, dtype=torch.float64)
    p, q = (log_density(x, number(m), number(lv)) for m, lv in ((m1, lv1), (m2, lv2)))
    integral = torch.trapezoid(p.exp() * (p - q), x)
    assert normal_kl(number(m1), number(lv1), number(m2), number(lv2)).item() == pytest.approx(
        integral.item(), rel=1e-9, abs=1e-9
    )


@pytest.mark.parametrize(
    ("x", "mean", "exact", "tanh"),
    [
        (pixel(128), pixel(128), -0.904818841519, -0.905018114211),
        (pixel(128), pixel(130), -2.96421293455, -2.95851122729),
        (-1.0, -1.0, -0.353383809998, None),
        (1.0, 0.99, -1.5836815475, None),
    ],
)
def test_decoder_gives_the_published_numbers(x: float, mean: float, exact: float, tanh: float | None) -> None:
    arguments = number(x), number(mean), number(LOGVAR), PIXELS
    assert discretised_log_likelihood(*arguments).item() == pytest.approx(exact, abs=1e-9)
    if tanh is not None:
        found = discretised_log_likelihood(*arguments, approximate=True)
        assert found.item() == pytest.approx(tanh, abs=1e-9)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    mean=st.floats(-1.5, 1.5),
    logvar=st.floats(-12, 3),
    count=st.integers(2, 300),
    low=st.floats(-2, 0),
    width=st.floats(0.5, 3),
    approximate=st.booleans(),
)
def test_probabilities_of_all_bins_add_to_one(
    mean: float, logvar: float, count: int, low: float, width: float, approximate: bool
) -> None:
    bins = Bins(low, low + width, count)
    x = torch.linspace(bins.low, bins.high, count, dtype=torch.float64)
    ln_p = discretised_log_likelihood(x, number(mean), number(logvar), bins, approximate=approximate)
    assert ln_p.exp().sum().item() == pytest.approx(1, abs=count * 1e-12 + 1e-9)


def test_short_numbers_keep_the_tails() -> None:
    x, mean = torch.tensor([pixel(200), pixel(100)]), torch.tensor([pixel(193), pixel(107)])
    sigma = math.exp(LOGVAR / 2)
    edges = [(float(x[0]) - float(mean[0]) + sign / 255) / sigma for sign in (-1, 1)]
    wanted = math.log(norm.sf(edges[0]) - norm.sf(edges[1]))
    found = discretised_log_likelihood(x, mean, torch.tensor(LOGVAR), PIXELS)
    torch.testing.assert_close(found, torch.full((2,), wanted), rtol=1e-4, atol=0)


def test_probabilities_have_a_floor() -> None:
    found = discretised_log_likelihood(number(1), number(-1), number(LOGVAR), PIXELS)
    assert found.item() == pytest.approx(math.log(1e-12))
