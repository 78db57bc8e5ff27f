"""Weights: their numbers, and that they mean the same whatever the network predicts."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffloom.errors import IncompatibleParts
from diffloom.path import from_log_snr
from diffloom.prediction import Denoised, Prediction
from diffloom_ddpm.schedules import Linear
from diffloom_ddpm.weighting import Weight, Weighting, error_ratio

LINEAR = Linear(steps=1000)
RELATIVE = [weight for weight in get_args(Weight) if weight != "uniform"]


def at(weighting: Weighting, kind: Prediction, i: int) -> float:
    return weighting.of_output(kind, LINEAR.alpha(i), LINEAR.sigma(i)).item()


@pytest.mark.parametrize(
    ("weighting", "kind", "i", "wanted"),
    [
        (Weighting("min-snr"), "eps", 0, 5.00050005e-4),
        (Weighting("min-snr"), "v", 0, 5e-4),
        (Weighting("min-snr"), "x0", 0, 5.0),
        (Weighting("min-snr"), "eps", 250, 1.0),
        (Weighting("min-snr"), "v", 250, 0.521423030619),
        (Weighting("min-snr", gamma=1.0), "x0", 250, 1.0),
        (Weighting("p2"), "eps", 0, 1e-4),
        (Weighting("p2"), "eps", 499, 0.921412757118),
        (Weighting("p2", gamma=0.5), "eps", 0, 1e-2),
        (Weighting("p2", k=3.0), "eps", 0, 1 / 10002),
        (Weighting("truncated-snr"), "eps", 0, 1.0),
        (Weighting("truncated-snr"), "x0", 999, 1.0),
        (Weighting("truncated-snr"), "eps", 499, 1 / 0.0852899444626),
        (Weighting("snr"), "x0", 499, 0.0852899444626),
        (Weighting("snr"), "eps", 499, 1.0),
        (Weighting("snr"), "v", 499, 0.0785872428818),
        (Weighting(), "eps", 0, 1.0),
        (Weighting(), "v", 0, 1.0),
    ],
)
def test_weights_have_their_published_numbers(weighting: Weighting, kind: Prediction, i: int, wanted: float) -> None:
    assert at(weighting, kind, i) == pytest.approx(wanted, rel=1e-9)


real = st.floats(-3, 3)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    log_snr=st.floats(-12, 12),
    path=st.sampled_from(["vp", "ve", "flow"]),
    weight=st.sampled_from(RELATIVE),
    kind=st.sampled_from(get_args(Prediction)),
    x_t=real,
    said=real,
    true=real,
)
def test_one_clean_estimate_has_one_loss_whatever_is_predicted(
    log_snr: float, path: str, weight: Weight, kind: Prediction, x_t: float, said: float, true: float
) -> None:
    alpha, sigma = from_log_snr(torch.tensor(log_snr, dtype=torch.float64), path)  # type: ignore[arg-type]
    x = torch.full((1, 1), x_t, dtype=torch.float64)
    outputs = [
        Denoised.from_x0(torch.full_like(x, x0), x, alpha, sigma).to_output(kind, alpha, sigma) for x0 in (said, true)
    ]
    squared = (outputs[0] - outputs[1]).square().item()
    wanted = Weighting(weight).of_output("x0", alpha, sigma).item() * (said - true) ** 2
    found = Weighting(weight).of_output(kind, alpha, sigma).item() * squared
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9 * (1 + wanted))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(log_snr=st.floats(-15, 15))
def test_squared_errors_stand_in_the_published_relations(log_snr: float) -> None:
    alpha, sigma = from_log_snr(torch.tensor(log_snr, dtype=torch.float64), "vp")
    snr, bar = (alpha / sigma).square(), alpha.square()
    of_eps, of_v = error_ratio("eps", alpha, sigma), error_ratio("v", alpha, sigma)
    torch.testing.assert_close(of_eps, 1 / snr)
    torch.testing.assert_close(of_v, 1 / (snr + 1))
    torch.testing.assert_close(of_v, 1 - bar)
    torch.testing.assert_close(of_v / of_eps, bar)


@pytest.mark.parametrize("weight", get_args(Weight))
@pytest.mark.parametrize("kind", ["x0", "v", "flow"])
def test_weights_are_finite_without_any_signal(weight: Weight, kind: Prediction) -> None:
    alpha, sigma = (torch.tensor(value, dtype=torch.float64) for value in (0.0, 1.0))
    wanted = {"uniform": 1.0, "truncated-snr": 1.0}.get(weight, 0.0)
    assert Weighting(weight).of_output(kind, alpha, sigma).item() == wanted


def test_gamma_without_use_is_refused() -> None:
    with pytest.raises(IncompatibleParts, match="γ"):
        Weighting("truncated-snr", gamma=5.0)
