"""The further schedules: printed values, ends, and wrappers around other schedules."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffloom.errors import DataError, IncompatibleParts
from diffloom.schedule import Schedule, ScheduleError
from diffloom_ddpm.schedules import Cosine, Linear, ScaledLinear, Sigmoid
from diffloom_solvers.curves import Exponential, Laplace, Polynomial, Quadratic, Sqrt
from diffloom_solvers.derived import Respaced, Table, ZeroTerminalSNR
from diffloom_solvers.flow import Flow
from diffloom_solvers.karras import Karras


def alpha_bar(schedule: Schedule, t: int) -> float:
    return float(schedule.alpha(t)) ** 2


@pytest.mark.parametrize(
    ("base", "t", "expected"),
    [
        (Linear(), 0, 0.9999),
        (Linear(), 1, 0.999779325433),
        (Linear(), 499, 0.0760287505471),
        (Linear(), 998, 4.21326246509e-9),
        (Linear(), 999, 0.0),
        (ScaledLinear(), 499, 0.242359166556),
        (ScaledLinear(), 998, 1.96788805662e-7),
        (Cosine(), 998, 2.27781147899e-6),
    ],
)
def test_zero_terminal_snr(base: Schedule, t: int, expected: float) -> None:
    schedule = ZeroTerminalSNR(schedule=base)
    assert alpha_bar(schedule, t) == pytest.approx(expected, rel=1e-9)
    assert schedule.zero_terminal_snr
    assert schedule.path == "vp"
    assert float(schedule.sigma(999)) == 1


def test_zero_terminal_snr_betas() -> None:
    schedule = ZeroTerminalSNR(schedule=Linear())
    assert float(schedule.beta(998)) == pytest.approx(0.75226723115, rel=1e-10)
    assert float(schedule.beta(999)) == 1
    again = ZeroTerminalSNR(schedule=schedule)
    torch.testing.assert_close(again.alpha(torch.arange(1000)), schedule.alpha(torch.arange(1000)))


def test_zero_terminal_snr_is_for_vp_only() -> None:
    with pytest.raises(IncompatibleParts, match="a vp schedule"):
        ZeroTerminalSNR(schedule=Karras()).alpha(0)


def test_quadratic_is_quad() -> None:
    assert alpha_bar(Quadratic(), 499) == pytest.approx(0.333187767356, rel=1e-11)
    assert alpha_bar(Quadratic(), 999) == pytest.approx(7.33412459581e-4, rel=1e-11)


def test_square_roots() -> None:
    assert 1e-46 < alpha_bar(Sqrt(of="beta"), 999) < 1e-42
    schedule, start = Sqrt(), 1 - math.sqrt(1e-4)
    for t in (0, 499, 998):
        assert alpha_bar(schedule, t) == pytest.approx((1 - math.sqrt((t + 1) / 1000 + 1e-4)) / start, rel=1e-9)
    assert float(schedule.beta(999)) == pytest.approx(0.999)


def test_exponential_has_one_beta() -> None:
    betas = Exponential().beta(torch.arange(1000))
    torch.testing.assert_close(betas, torch.full((1000,), -math.expm1(-0.012), dtype=torch.float64))
    assert alpha_bar(Exponential(), 999) == pytest.approx(math.exp(-12))


def test_laplace_quantiles() -> None:
    schedule = Laplace(steps=999, mu=0.5, b=0.7)
    log_snr = schedule.log_snr(torch.arange(999))
    assert float(log_snr[499]) == pytest.approx(0.5)
    assert float(log_snr[249]) == pytest.approx(0.5 + 0.7 * math.log(2), rel=1e-12)
    assert float(log_snr[749]) == pytest.approx(0.5 - 0.7 * math.log(2), rel=1e-12)


def test_polynomial() -> None:
    schedule = Polynomial()
    assert float(schedule.alpha(499)) == pytest.approx((1 - 2e-5) * 0.75 + 1e-5)
    assert float(schedule.alpha(999)) == pytest.approx(1e-5)


def test_flow_is_a_straight_line_to_pure_noise() -> None:
    schedule = Flow(steps=10)
    torch.testing.assert_close(schedule.sigma(torch.arange(10)), torch.arange(1, 11, dtype=torch.float64) / 10)
    assert schedule.path == "flow"
    assert schedule.zero_terminal_snr
    assert float(schedule.sigma(3.5)) == pytest.approx(0.45, abs=2e-3)


def test_flow_shift() -> None:
    u = torch.arange(1, 11, dtype=torch.float64) / 10
    torch.testing.assert_close(Flow(steps=10, shift=3.0).sigma(torch.arange(10)), 3 * u / (1 + 2 * u))
    wide = Flow(steps=10, size=96, base_size=32)
    assert torch.equal(wide.sigma(torch.arange(10)), Flow(steps=10, shift=3.0).sigma(torch.arange(10)))
    # the shift multiplies σ/α, so it moves log-SNR by a constant
    moved = Flow(steps=10).log_snr(torch.arange(9)) - Flow(steps=10, shift=3.0).log_snr(torch.arange(9))
    torch.testing.assert_close(moved, torch.full((9,), 2 * math.log(3), dtype=torch.float64))


LOW = [0.002, 0.020435334553, 0.11663856353, 0.46997905800, 1.5017419791]
HIGH = [4.0661236030, 9.7232013553, 21.108676736, 42.415189319, 80]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (10, [*LOW, *HIGH]),
        (18, [0.002, 0.0075280199628, 0.022934518372, 40.785573797, 57.585984721, 80]),
    ],
)
def test_karras(steps: int, expected: list[float]) -> None:
    sigma = Karras(steps=steps).sigma(torch.arange(steps)).tolist()
    got = sigma if len(expected) == steps else sigma[:3] + sigma[-3:]
    assert got == pytest.approx(expected, rel=1e-9)
    assert Karras(steps=steps).path == "ve"
    assert Karras(steps=1).sigma(0) == 80


def test_karras_must_rise() -> None:
    with pytest.raises(IncompatibleParts, match="sigma_max above sigma_min"):
        Karras(sigma_min=1.0, sigma_max=1.0).alpha(0)


def test_respaced_takes_levels_over() -> None:
    schedule = Respaced(schedule=Linear(), steps=50)
    assert schedule.steps == 50
    for t, origin in ((0, 0), (1, 20), (49, 999)):
        assert float(schedule.alpha(t)) == float(Linear().alpha(origin))
    assert float(schedule.beta(49)) == pytest.approx(0.329809066095, rel=1e-11)


def test_table_reads_files(tmp_path: Path) -> None:
    alpha, sigma = Linear(steps=20).table()
    np.savez(tmp_path / "a.npz", alpha=alpha.numpy(), sigma=sigma.numpy())
    np.savez(tmp_path / "b.npz", alpha_bar=alpha.square().numpy())
    save_file({"alpha": alpha, "sigma": sigma}, tmp_path / "c.safetensors")
    for name in ("a.npz", "b.npz", "c.safetensors"):
        schedule = Table(file=str(tmp_path / name))
        assert schedule.steps == 20
        torch.testing.assert_close(schedule.alpha(torch.arange(20)), alpha)
        torch.testing.assert_close(schedule.sigma(torch.arange(20)), sigma, rtol=1e-9, atol=0)


def test_table_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    (tmp_path / "bad.safetensors").write_bytes(b"no archive")
    np.savez(tmp_path / "other.npz", beta=np.ones(3))
    np.savez(tmp_path / "flat.npz", alpha=np.ones(3) / 2, sigma=np.ones(3) / 2)
    for name in ("bad.npz", "bad.safetensors", "missing.npz"):
        with pytest.raises(DataError, match="cannot be read"):
            Table(file=str(tmp_path / name)).alpha(0)
    with pytest.raises(DataError, match="got beta"):
        Table(file=str(tmp_path / "other.npz")).alpha(0)
    with pytest.raises(ScheduleError, match="does not fall"):
        Table(file=str(tmp_path / "flat.npz")).alpha(0)


@pytest.mark.parametrize(
    ("schedule", "family"),
    [
        *((cls(), "vp") for cls in (Linear, ScaledLinear, Cosine, Sqrt, Quadratic, Exponential, Laplace, Polynomial)),
        *((Sigmoid(of=of), "vp") for of in ("beta", "alpha-bar")),
        (Sqrt(of="beta"), "vp"),
        (ZeroTerminalSNR(schedule=Linear()), "vp"),
        (Respaced(schedule=Linear(), steps=50), "vp"),
        (Karras(), "ve"),
        (Flow(shift=3.0), "flow"),
    ],
)
def test_every_schedule_is_exactly_of_its_family(schedule: Schedule, family: str) -> None:
    alpha, sigma = schedule.table()
    excess = {"vp": alpha**2 + sigma**2, "ve": alpha, "flow": alpha + sigma}[family] - 1
    assert float(excess.abs().max()) < 1e-12
    assert schedule.path == family
