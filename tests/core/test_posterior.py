"""The posterior's closed forms, and latents brought to unit size."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor, nn

from diffloom.autoencoder import Posterior, ScaledAutoencoder
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.tiles import blended

numbers = st.floats(-3, 3, allow_nan=False)
logs = st.floats(-4, 2, allow_nan=False)


def normal(mean: float, std: float) -> Posterior:
    return Posterior(
        torch.tensor([[mean]], dtype=torch.float64), torch.tensor([[2 * math.log(std)]], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("mean", "std", "kl"),
    [(0.5, 0.8, 0.168143551314), (0.0, 1.0, 0.0), (1.0, 1.0, 0.5), (0.0, math.exp(-1), 0.567667641618)],
)
def test_divergence_from_the_standard_normal(mean: float, std: float, kl: float) -> None:
    assert float(normal(mean, std).kl()) == pytest.approx(kl, abs=1e-11)


def test_divergence_from_another_normal() -> None:
    assert float(normal(0.5, 0.8).kl(normal(-0.2, 1.5))) == pytest.approx(0.379719770533, abs=1e-11)


def test_logvar_is_clamped() -> None:
    def kl(logvar: float) -> float:
        zero = torch.zeros(1, 1, dtype=torch.float64)
        return float(Posterior(zero, zero + logvar).kl())

    assert kl(-40.0) == pytest.approx(0.5 * (math.exp(-30) - 1 + 30), abs=1e-12)
    assert kl(25.0) == pytest.approx(242582587.205, abs=1e-2)


def test_gradients_of_the_divergence() -> None:
    mean = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    logvar = torch.tensor([[2 * math.log(0.8)]], dtype=torch.float64, requires_grad=True)
    Posterior(mean, logvar).kl().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert mean.grad is not None
    assert logvar.grad is not None
    assert float(mean.grad) == pytest.approx(0.5, abs=1e-12)
    assert float(logvar.grad) == pytest.approx(-0.18, abs=1e-12)


def test_draws_carry_pathwise_gradients() -> None:
    """Of E z² = μ² + σ² these are 2μ and 2σ; the deviation of each estimate is below 1 % with 10⁵ draws."""
    count = 100_000
    mean = torch.tensor(0.7, requires_grad=True)
    std = torch.tensor(0.5, requires_grad=True)
    q = Posterior(mean.expand(1, count), (2 * std.log()).expand(1, count))
    q.sample(Noise([0])).square().mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert mean.grad is not None
    assert std.grad is not None
    assert float(mean.grad) == pytest.approx(1.4, rel=0.02)
    assert float(std.grad) == pytest.approx(1.0, rel=0.02)


@settings(deadline=None, max_examples=50)
@given(mean=numbers, log=logs, other_mean=numbers, other_log=logs)
def test_divergence_is_the_mean_difference_of_log_densities(
    mean: float, log: float, other_mean: float, other_log: float
) -> None:
    """E_q[ln q − ln p], by Gauss–Hermite quadrature, which is exact for squares; never negative, 0 for equals."""
    q, p = normal(mean, math.exp(log / 2)), normal(other_mean, math.exp(other_log / 2))
    nodes, weights = (torch.tensor(a) for a in hermegauss(8))
    z = mean + math.exp(log / 2) * nodes[:, None]
    expected = (weights / weights.sum() * (p.nll(z) - q.nll(z))).sum()
    assert float(q.kl(p)) == pytest.approx(float(expected), rel=1e-9, abs=1e-9)
    assert float(q.kl(p)) >= -1e-12
    assert float(q.kl(q)) == pytest.approx(0, abs=1e-12)


def test_density_of_a_draw() -> None:
    assert float(normal(0.0, math.sqrt(0.5)).nll(torch.zeros(1, 1).double())) == pytest.approx(
        0.572364942925, abs=1e-11
    )


def test_a_linear_gaussian_model_meets_its_evidence() -> None:
    """x = 2z + ½ + N(0, ¼), x = 1.7: at the exact posterior the bound is ln p(x); elsewhere KL to it is the gap."""

    def bound(q: Posterior) -> tuple[float, float]:
        mean, variance = float(q.mean), float(q.logvar.exp())  # type: ignore[union-attr]  # it has one
        cost = 0.5 * math.log(2 * math.pi * 0.25) + ((1.7 - 0.5 - 2 * mean) ** 2 + 4 * variance) / (2 * 0.25)
        return -cost, float(q.kl())

    exact = normal(0.564705882353, math.sqrt(0.0588235294118))
    reconstruction, kl = bound(exact)
    assert reconstruction == pytest.approx(-0.706344985863, abs=1e-9)
    assert kl == pytest.approx(1.10546480352, abs=1e-9)
    assert reconstruction - kl == pytest.approx(-1.81180978938, abs=1e-9)
    other = normal(0.4, math.sqrt(0.1))
    reconstruction, kl = bound(other)
    assert reconstruction == pytest.approx(-1.34579135264)
    assert kl == pytest.approx(0.781292546497)
    assert float(other.kl(exact)) == pytest.approx(-1.81180978938 - (reconstruction - kl), abs=1e-8)


@settings(deadline=None, max_examples=50)
@given(scale=st.floats(0.05, 20), shift=numbers)
def test_scaling_is_undone(scale: float, shift: float) -> None:
    q = Posterior(torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.randn(2, 3, 2, 2, dtype=torch.float64))
    again = q.scaled(scale, shift).unscaled(scale, shift)
    torch.testing.assert_close(again.mean, q.mean)
    torch.testing.assert_close(again.logvar, q.logvar)
    z = q.sample(Noise([1, 2]))
    torch.testing.assert_close(q.scaled(scale, shift).sample(Noise([1, 2])), (z - shift) * scale)


class Plain(ScaledAutoencoder):
    """Raw latents are the images, times nothing."""

    stride, reach = 1, 2

    def moments(self, x: Tensor) -> Tensor:
        return x

    def posterior(self, moments: Tensor) -> Posterior:
        return Posterior(moments)

    def picture(self, raw: Tensor) -> Tensor:
        return raw


def images() -> Tensor:
    spread, centre = torch.tensor([[0.1, 3.0, 40.0], [1.0, -2.0, 0.5]]).view(2, -1, 1, 1)
    draws: Tensor = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return torch.addcmul(centre, draws, spread)


def test_measured_latents_have_unit_size_in_each_channel() -> None:
    part, x = Plain(channels=3), images()
    assert not part.is_scaled()
    part.measure([(x[:4], Noise(range(4))), (x[4:], Noise(range(4)))])
    z = part.encode(x).mode()
    assert part.is_scaled()
    assert z.transpose(0, 1).flatten(1).std(1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert z.transpose(0, 1).flatten(1).mean(1) == pytest.approx([0, 0, 0], abs=1e-5)
    torch.testing.assert_close(part.decode(z), x, rtol=1e-5, atol=1e-4)


def test_one_scale_for_all_channels_is_latent_diffusions() -> None:
    part, x = Plain(channels=3), images()
    part.measure([(x, Noise(range(8)))], shared=True)
    assert float(part.encode(x).mode().std()) == pytest.approx(1, abs=1e-5)
    assert part.scale.flatten().tolist() == pytest.approx([1 / float(x.std())] * 3)
    assert not part.shift.any()


def test_a_scale_is_saved_and_a_given_one_outlasts_loading() -> None:
    measured, given_one = Plain(channels=3), Plain(channels=3, scale=0.18215)
    measured.measure([(images(), Noise(range(8)))])
    fresh = Plain(channels=3)
    fresh.load_state_dict(measured.state_dict())
    assert fresh.is_scaled()
    assert torch.equal(fresh.scale, measured.scale)
    given_one.load_state_dict(measured.state_dict())
    assert given_one.scale.flatten().tolist() == pytest.approx([0.18215] * 3)
    assert pytest.approx(5.48998078507) == 1 / 0.18215
    with torch.device("meta"):
        assert not Plain(channels=3).is_scaled()
        assert Plain(channels=3, scale=1.0).is_scaled()


@pytest.mark.parametrize("wrong", [{"scale": (1.0, 2.0)}, {"scale": 0.0}, {"shift": (1.0,)}])
def test_scales_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(IncompatibleParts):
        Plain(channels=3, **wrong)


@settings(deadline=None, max_examples=50)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    tile=st.integers(4, 12),
    share=st.integers(0, 2),
    factor=st.sampled_from([1, 2, 4]),
)
def test_tiles_of_an_identity_give_the_map_back(height: int, width: int, tile: int, share: int, factor: int) -> None:
    x = torch.randn(1, 2, height, width)
    tiles = (tile, share * tile // 4)

    def grow(part: Tensor) -> Tensor:
        return part.repeat_interleave(factor, 2).repeat_interleave(factor, 3)

    torch.testing.assert_close(blended(grow, x, tiles, decode=factor), grow(x))
    torch.testing.assert_close(blended(lambda part: part[..., ::factor, ::factor], grow(x), tiles, encode=factor), x)


def test_a_network_that_sees_less_than_the_margin_has_no_seams() -> None:
    blur = nn.Conv2d(1, 1, 3, padding=1)
    x = torch.randn(1, 1, 50, 61)
    with torch.no_grad():
        torch.testing.assert_close(blended(blur, x, (16, 8)), blur(x))


def test_autoencoders_work_in_tiles_where_maps_are_large() -> None:
    part, seen = Plain(channels=3, scale=2.0), []
    part.tile = 8
    plain = part.picture
    part.picture = lambda raw: seen.append(raw.shape) or plain(raw)  # type: ignore[method-assign, func-returns-value]
    z = torch.randn(1, 3, 20, 6)
    torch.testing.assert_close(part.decode(z), z / 2)
    assert len(seen) > 1
    assert max(side for shape in seen for side in shape[2:]) == 8
    part.tile = 3
    with pytest.raises(IncompatibleParts, match="too small"):
        part.decode(z)
