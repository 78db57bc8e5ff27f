"""Laws that hold on every path, for every schedule and every time, integer or real."""

import copy
import math
import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffloom.path import Path
from diffloom.schedule import Schedule, ScheduleError
from diffloom.testing.strategies import Tabled, schedules, timesteps
from diffloom_ddpm.schedules import Cosine, Linear

from .fixed import law

pairs = schedules(min_steps=2).flatmap(
    lambda schedule: st.tuples(
        st.just(schedule),
        st.lists(timesteps(schedule, clean=True), min_size=3, max_size=3, unique=True).map(sorted),
    )
)


def distinct(times: list[float], gap: float = 1e-6) -> bool:
    return all(late - early > gap for early, late in pairwise(times))


@law
@given(schedules())
def test_log_snr_falls_at_integer_and_real_times(schedule: Schedule) -> None:
    t = torch.linspace(-1, schedule.steps - 1, 7 * schedule.steps + 1, dtype=torch.float64)
    assert bool((schedule.log_snr(t).diff() < 0).all())
    assert float(schedule.log_snr(-1)) == math.inf


@law
@given(schedules())
def test_real_times_stay_on_the_path_and_meet_the_table(schedule: Schedule) -> None:
    t = torch.linspace(-1, schedule.steps - 1, 5 * schedule.steps + 1, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    law = {"vp": alpha**2 + sigma**2, "ve": alpha, "flow": alpha + sigma, "other": torch.ones_like(t)}
    torch.testing.assert_close(law[schedule.path], torch.ones_like(t), rtol=0, atol=1e-12)
    whole = torch.arange(schedule.steps)
    for got, wanted in zip((schedule.alpha, schedule.sigma), schedule.table(), strict=True):
        assert torch.equal(got(whole), wanted)
        assert torch.equal(got(whole.double()), wanted)
    inner = (alpha > 0) & (sigma > 0)
    ratio = 2 * (alpha.log() - sigma.log())
    torch.testing.assert_close(schedule.log_snr(t)[inner], ratio[inner], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", ["vp", "ve", "flow", "other"])
def test_the_family_is_recognised(path: Path) -> None:
    @law
    @given(schedules(min_steps=2, paths=[path]))
    def check(schedule: Schedule) -> None:
        assert schedule.path == path

    check()


@law
@given(schedules(), st.floats(-1, 1))
def test_time_inverts_log_snr(schedule: Schedule, share: float) -> None:
    t = -1 + (share + 1) / 2 * schedule.steps
    assert float(schedule.time(schedule.log_snr(t))) == pytest.approx(t, abs=1e-9 * max(1, schedule.steps))
    whole = torch.arange(-1, schedule.steps)
    torch.testing.assert_close(schedule.time(schedule.log_snr(whole)), whole.double(), rtol=0, atol=1e-12)


@law
@given(pairs)
def test_transitions_compose(drawn: tuple[Schedule, list[float]]) -> None:
    schedule, (r, s, t) = drawn
    if not distinct([r, s, t]):
        return
    alpha_ts, var_ts = schedule.transition(t, s)
    alpha_sr, var_sr = schedule.transition(s, r)
    alpha_tr, var_tr = schedule.transition(t, r)
    torch.testing.assert_close(alpha_ts * alpha_sr, alpha_tr, rtol=1e-9, atol=1e-300)
    torch.testing.assert_close(alpha_ts**2 * var_sr + var_ts, var_tr, rtol=1e-7, atol=1e-12)


@law
@given(pairs)
def test_a_transition_leads_from_marginal_to_marginal(drawn: tuple[Schedule, list[float]]) -> None:
    schedule, (s, _, t) = drawn
    if not distinct([s, t]):
        return
    ratio, variance = schedule.transition(t, s)
    assert float(variance) > 0
    torch.testing.assert_close(ratio * schedule.alpha(s), schedule.alpha(t), rtol=1e-12, atol=1e-300)
    total = ratio**2 * schedule.sigma(s) ** 2 + variance
    torch.testing.assert_close(total, schedule.sigma(t) ** 2, rtol=1e-9, atol=1e-300)


@law
@given(pairs)
def test_a_chain_of_posteriors_keeps_the_marginal(drawn: tuple[Schedule, list[float]]) -> None:
    schedule, (s, _, t) = drawn
    if not distinct([s, t]):
        return
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    of_x_t = schedule.posterior(one, zero, t, s)
    of_x0 = schedule.posterior(zero, one, t, s)
    mean = of_x0.mean + of_x_t.mean * schedule.alpha(t)
    variance = of_x_t.mean**2 * schedule.sigma(t) ** 2 + of_x_t.variance
    torch.testing.assert_close(mean, schedule.alpha(s).expand(1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(variance, (schedule.sigma(s) ** 2).expand(1), rtol=1e-9, atol=1e-300)


@law
@given(pairs, st.floats(-1, 1), st.floats(-2, 2))
def test_the_posterior_is_bayes_rule_by_integration(
    drawn: tuple[Schedule, list[float]], x0: float, noise: float
) -> None:
    schedule, (_, s, t) = drawn
    if s < 0 or float(schedule.log_snr(s) - schedule.log_snr(t)) < 0.05:
        return
    x_t = float(schedule.alpha(t)) * x0 + float(schedule.sigma(t)) * noise
    ratio, variance = (float(part) for part in schedule.transition(t, s))
    centre, spread = float(schedule.alpha(s)) * x0, float(schedule.sigma(s))
    z = torch.linspace(-14, 14, 20001, dtype=torch.float64)
    log_joint = -0.5 * z**2 - 0.5 * (x_t - ratio * (centre + spread * z)) ** 2 / variance
    joint = torch.exp(log_joint - log_joint.max())
    mass, mean, square = (float(torch.trapezoid(joint * z**k, z)) for k in range(3))
    data = torch.tensor([[x_t], [x0]], dtype=torch.float64)
    posterior = schedule.posterior(data[0], data[1], t, s)
    assert float((posterior.mean - centre) / spread) == pytest.approx(mean / mass, abs=1e-7)
    assert float(posterior.variance) / spread**2 == pytest.approx(square / mass - (mean / mass) ** 2, abs=1e-7)


@law
@given(schedules(zero_terminal_snr=True, paths=["vp", "flow", "other"]))
def test_both_ends_are_defined(schedule: Schedule) -> None:
    x = torch.ones(1, dtype=torch.float64)
    last = schedule.steps - 1
    assert schedule.zero_terminal_snr
    ratio, variance = schedule.transition(last, -1)
    assert float(ratio) == 0
    assert float(variance) == float(schedule.sigma(last)) ** 2
    posterior = schedule.posterior(x, 0.25 * x, last, -1)
    assert float(posterior.mean) == 0.25
    assert float(posterior.variance) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32, torch.int64])
def test_times_of_any_type_and_shape_give_float64(dtype: torch.dtype) -> None:
    t = torch.tensor([[0, 3], [5, 9]], dtype=dtype)
    for method in (Linear().alpha, Linear().sigma, Linear().log_snr, Linear().beta):
        got = method(t)
        assert got.dtype == torch.float64
        assert got.shape == (2, 2)
        assert torch.equal(got[1, 0], method(5))


def test_times_on_a_meta_device_give_shapes() -> None:
    t = torch.zeros(4, dtype=torch.long, device="meta")
    x = torch.zeros(4, 3, 2, 2, device="meta")
    schedule = Linear()
    assert schedule.diffuse(x, t, x).shape == x.shape
    assert schedule.posterior(x, x, t, -1).mean.shape == x.shape
    assert schedule.time(schedule.log_snr(t)).shape == (4,)
    with torch.device("meta"):
        assert float(Cosine().alpha(3)) > 0


def test_one_time_per_item() -> None:
    schedule = Linear()
    x0, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    t = torch.tensor([0, 400, 999])
    together = schedule.diffuse(x0, t, noise)
    for i in range(3):
        assert torch.equal(together[i], schedule.diffuse(x0[i : i + 1], t[i : i + 1], noise[i : i + 1])[0])
    assert schedule.posterior(x0, noise, t, t - 1).variance.shape == (3, 1, 1, 1)


def test_short_data_types_lose_their_own_digits_only() -> None:
    schedule = Linear()
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(4, 1, 8, 8, generator=generator) * 2 - 1
    noise = torch.randn(4, 1, 8, 8, generator=generator)
    t = torch.tensor([0, 10, 500, 999])
    for dtype, unit in ((torch.bfloat16, 2**-8), (torch.float16, 2**-11), (torch.float32, 2**-24)):
        short = schedule.diffuse(x0.to(dtype), t, noise.to(dtype))
        exact = schedule.diffuse(x0.to(dtype).double(), t, noise.to(dtype).double())
        assert short.dtype == dtype
        assert float(((short.double() - exact).abs() / exact.abs().clamp(min=1)).max()) <= 2 * unit


@pytest.mark.parametrize("t", [-2, 1000, -1.5, 999.5, math.nan, torch.tensor([0, 1000]), torch.tensor(-1.01)])
def test_times_outside_the_schedule_are_refused(t: int | float | Tensor) -> None:
    with pytest.raises(ScheduleError, match="outside the schedule"):
        Linear().alpha(t)


def test_a_transition_needs_an_earlier_time() -> None:
    for t, s in ((3, 3), (3, 4), (torch.tensor([5, 2]), torch.tensor([4, 2]))):
        with pytest.raises(ScheduleError, match="from less noise to more"):
            Linear().transition(t, s)


@pytest.mark.parametrize(
    ("alpha", "sigma", "complaint"),
    [
        ([0.9, 0.9], [0.1, 0.1], "log-SNR does not fall at t = 1"),
        ([0.9, 0.5, 0.6], [0.1, 0.5, 0.4], "log-SNR does not fall at t = 2"),
        ([0.9, math.nan], [0.1, 0.5], "α is not finite at t = 1"),
        ([0.9, 0.5], [0.1, math.inf], "σ is not finite at t = 1"),
        ([1.0, 0.5], [0.0, 0.5], "σ is not positive at t = 0"),
        ([0.9, -0.5], [0.1, 0.5], "α is negative at t = 1"),
        ([0.9, 0.0, 0.0], [0.1, 1.0, 1.0], "log-SNR does not fall at t = 2"),
    ],
)
def test_a_table_that_breaks_the_law_is_refused(alpha: list[float], sigma: list[float], complaint: str) -> None:
    columns = [torch.tensor(column, dtype=torch.float64) for column in (alpha, sigma)]
    with pytest.raises(ScheduleError, match=complaint):
        Tabled(alpha=columns[0], sigma=columns[1]).alpha(0)


def test_a_table_of_the_wrong_type_or_length_is_refused() -> None:
    alpha, sigma = Linear(steps=4).table()
    with pytest.raises(ScheduleError, match="not float64"):
        Tabled(alpha=alpha.float(), sigma=sigma.float()).alpha(0)
    short = Tabled(alpha=alpha, sigma=sigma)
    short.steps = 5
    with pytest.raises(ScheduleError, match="wrong shape"):
        short.alpha(0)


def test_schedules_can_be_copied_and_sent_to_workers() -> None:
    schedule = Linear()
    schedule.alpha(3)
    for twin in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert torch.equal(twin.alpha(3), schedule.alpha(3))


def test_the_kept_table_does_not_remember_inference_mode() -> None:
    schedule = Linear()
    with torch.inference_mode():
        schedule.alpha(torch.tensor([3]))
    x0 = torch.zeros(1, 2, requires_grad=True)
    total = schedule.diffuse(x0, torch.tensor([3]), torch.zeros(1, 2)).sum()
    assert bool(torch.autograd.grad(total, x0)[0].all())
