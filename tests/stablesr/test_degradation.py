"""Damage made on purpose: kernels by their formulas, and every step by what it must leave as it is."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffloom.errors import DataError
from diffloom_stablesr import kernels
from diffloom_stablesr.degradation import (
    SHAPES,
    Degrade,
    Order,
    blurred,
    gaussian_noise,
    jpeg,
    poisson_noise,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(bands: int = 3, side: int = 64) -> torch.Tensor:
    ramp = torch.linspace(-0.8, 0.8, side)
    wave = torch.sin(ramp[:, None] * 9) * torch.cos(ramp * 5)
    return torch.stack([wave * (0.3 + 0.6 * band / bands) for band in range(bands)])


@settings(deadline=None)
@given(sigma=st.floats(0.8, 3), angle=st.floats(-math.pi, math.pi))
def test_a_round_gaussian_has_the_variance_asked_for_at_any_angle(sigma: float, angle: float) -> None:
    kernel = kernels.gaussian(kernels.elliptic(33, (sigma, sigma), angle))
    axis = torch.arange(33, dtype=torch.float64) - 16
    assert abs(float(kernel.sum()) - 1) < 1e-12
    assert abs(float((kernel.sum(0) * axis.square()).sum()) - sigma**2) < 2e-2 * sigma**2


def test_an_ellipse_is_turned() -> None:
    flat = kernels.gaussian(kernels.elliptic(15, (3.0, 1.0), 0.0))
    torch.testing.assert_close(kernels.gaussian(kernels.elliptic(15, (3.0, 1.0), math.pi / 2)), flat.T)
    assert flat[7, 11] > flat[11, 7]


def test_plateaus_are_flatter_and_generalised_kernels_heavier() -> None:
    q = kernels.elliptic(21, (2.0, 2.0), 0.0)
    flat, round_ = kernels.plateau(q, 2.0), kernels.gaussian(q)
    assert flat[10, 11] / flat[10, 10] > round_[10, 11] / round_[10, 10]
    assert kernels.gaussian(q, 0.5)[10, 0] > kernels.gaussian(q)[10, 0]
    torch.testing.assert_close(kernels.gaussian(q, 1.0), kernels.gaussian(q))
    assert float(kernels.plateau(q, 1.0)[10, 12] / kernels.plateau(q, 1.0)[10, 10]) == pytest.approx(0.5)


def test_the_low_pass_lets_low_waves_through_and_stops_high_ones() -> None:
    kernel = kernels.sinc(21, 1.0)
    axis = torch.arange(21, dtype=torch.float64) - 10
    gain = [abs(float((kernel.sum(0) * torch.cos(w * axis)).sum())) for w in (0.3, 2.0)]
    assert gain[0] > 0.9
    assert gain[1] < 0.1


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31))
def test_every_kernel_drawn_is_odd_finite_and_keeps_flat_images(seed: int) -> None:
    kernel = kernels.draw(generator(seed), sizes=(7, 21), sigma=(0.2, 1.5), shapes=SHAPES, sinc_probability=0.1)
    assert kernel.shape[0] in range(7, 22, 2)
    assert torch.isfinite(kernel).all()
    assert float(kernel.sum()) == pytest.approx(1)
    flat = torch.full((1, 2, 24, 24), 0.3)
    torch.testing.assert_close(blurred(flat, kernel), flat, atol=1e-5, rtol=0)


def test_small_images_take_a_smaller_kernel() -> None:
    kernel = kernels.gaussian(kernels.elliptic(21, (2.0, 2.0), 0.0))
    flat = torch.full((1, 1, 4, 6), 0.3)
    torch.testing.assert_close(blurred(flat, kernel), flat)


def test_blur_is_a_convolution() -> None:
    x = torch.rand(1, 1, 16, 16)
    kernel = torch.zeros(7, 7)
    kernel[3, 3] = 1
    torch.testing.assert_close(blurred(x, kernel), x)


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_noise_has_the_variance_asked_for(bands: int) -> None:
    x = torch.full((1, bands, 128, 128), 0.5)
    noise = gaussian_noise(x, 0.1, generator(), grey=False) - x
    assert float(noise.std()) == pytest.approx(0.1, rel=0.03)
    same = gaussian_noise(x, 0.1, generator(), grey=True) - x
    torch.testing.assert_close(same, same[:, :1].expand_as(same))


def test_photon_noise_grows_with_brightness_as_counts_do() -> None:
    levels = torch.arange(256).div(255).repeat(256, 1)[None, None]
    noise = poisson_noise(levels, 1.0, generator(), grey=False) - levels
    for column in (64, 128, 255):  # 256 values: 256 photons at full brightness, variance mean / photons
        measured = noise[..., max(0, column - 8) : column + 1].var()
        assert float(measured) == pytest.approx(column / 255 / 256, rel=0.2)
    half = poisson_noise(levels, 0.5, generator(), grey=False) - levels
    torch.testing.assert_close(half, noise / 2)


@pytest.mark.parametrize("bands", [1, 2, 3, 6])
def test_jpeg_of_any_number_of_bands(bands: int) -> None:
    x = (image(bands) + 1)[None] / 2
    good, bad = (float((jpeg(x, q) - x).square().mean()) for q in (95, 20))
    assert jpeg(x, 80).shape == x.shape
    assert good < 1e-4
    assert bad > 2 * good


def test_the_sample_gains_a_small_image_and_keeps_the_rest() -> None:
    sample = {"image": image(4), "label": 3}
    kept = image(4)
    out = Degrade()(sample, generator())
    assert tuple(out["low_res"].shape) == (4, 16, 16)
    assert out["label"] == 3
    assert torch.equal(out["image"], kept)
    assert out["low_res"].abs().max() <= 1


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_one_seed_gives_one_result_within_the_range(seed: int) -> None:
    one, other = (Degrade()({"image": image(3, 32)}, generator(seed))["low_res"] for _ in range(2))
    assert torch.equal(one, other)
    assert one.min() >= -1
    assert one.max() <= 1


def test_a_spared_image_is_only_reduced() -> None:
    x = image()
    out = Degrade(pure=1.0, scale=2)({"image": x}, generator())["low_res"]
    wanted = torch.nn.functional.interpolate((x[None] + 1) / 2, size=(32, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(out, wanted[0].clamp(0, 1) * 2 - 1)


def test_no_damage_is_near_a_reduction_and_damage_is_not() -> None:
    nothing = Order(blur=0, resize=(1, 1), directions=(0, 0, 1), gaussian=1, noise=(0, 0))
    calm = Degrade(first=nothing, second=nothing, jpeg=(100, 100), last_jpeg=(100, 100), last_sinc=0, pure=0)
    reduced = calm.reduced((image()[None] + 1) / 2)[0] * 2 - 1
    found = calm({"image": image()}, generator())["low_res"]
    damage = Degrade(pure=0)({"image": image()}, generator())["low_res"]
    assert (found - reduced).abs().mean() < 0.05
    assert (damage - reduced).abs().mean() > 1.5 * (found - reduced).abs().mean()


def test_sides_must_divide() -> None:
    with pytest.raises(DataError, match="multiples of 4"):
        Degrade()({"image": torch.zeros(3, 30, 32)}, generator())
