"""The laws that the scaffolded parts state, beyond the contracts of their interfaces."""

import math

import pytest
import torch

from diffloom import Condition, Noise, Ports, Space
from diffloom.scaffold.parts.autoencoder import Haar
from diffloom.scaffold.parts.conditioner import Brightness
from diffloom.scaffold.parts.dataset import Shapes
from diffloom.scaffold.parts.metric import spread
from diffloom.scaffold.parts.sampler import Fresh
from diffloom.scaffold.parts.schedule import Straight
from diffloom.scaffold.parts.transform import Shift
from diffloom.testing.oracles import DiagonalGaussian
from diffloom.testing.standins import TinyDenoiser

SPACE = Space(channels=2, size=(8, 8))


def test_the_share_of_signal_falls_in_a_straight_line() -> None:
    schedule = Straight(steps=10, last=0.01)
    t = torch.arange(10)
    assert schedule.path == "vp"
    torch.testing.assert_close(schedule.alpha(t) ** 2, 1 - 0.99 * (t.double() + 1) / 10)


def test_the_wavelets_lose_nothing_and_keep_lengths() -> None:
    part = Haar(space=SPACE, scale=0.7)
    x = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    z = part.encode(x).mode()
    torch.testing.assert_close(part.decode(z), x)
    torch.testing.assert_close(z.flatten(1).norm(dim=1), 0.7 * x.flatten(1).norm(dim=1))


def test_a_flat_image_is_in_the_first_of_its_four_wavelet_channels() -> None:
    z = Haar(space=SPACE, scale=1.0).encode(torch.ones(1, 2, 4, 4)).mode()
    torch.testing.assert_close(z[0, :, 0, 0], torch.tensor([2.0, 0, 0, 0, 2.0, 0, 0, 0]))


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0, 3.0])
def test_samples_have_the_moments_of_the_data_at_any_rate(rate: float) -> None:
    schedule = Straight(steps=400)
    sampler, noise = Fresh(steps=200, rate=rate, spacing="log-snr"), Noise([0])
    x_t = sampler.start(schedule, noise.normal(torch.empty(1, 20_000).double(), "x_T"))
    x_0 = sampler.sample(DiagonalGaussian(schedule, 0.3, 0.5), schedule, x_t, noise)
    assert float(x_0.mean()) == pytest.approx(0.3, abs=0.03)
    assert float(x_0.std()) == pytest.approx(0.5, abs=0.03)


def test_rate_1_draws_as_much_as_the_posterior_has() -> None:
    schedule, sampler = Straight(steps=100), Fresh(steps=10, rate=1.0)
    levels = sampler.grid(schedule).levels
    share = sampler.share(levels[3], levels[4])
    snr = math.exp(levels[3].log_snr - levels[4].log_snr)
    assert share == pytest.approx(1 - snr)


def test_brightness_is_all_that_is_told() -> None:
    part = Brightness(denoiser=TinyDenoiser(space=SPACE))
    dark, light = torch.full((1, 2, 8, 8), -0.5), torch.full((1, 2, 8, 8), 0.5)
    mixed = torch.cat([dark[:, :1] - 0.5, dark[:, 1:] + 0.5], 1)
    codes = [part.encode({"image": image}).vector for image in (dark, light, mixed)]
    torch.testing.assert_close(codes[0], codes[2])
    assert not torch.equal(torch.as_tensor(codes[0]), torch.as_tensor(codes[1]))
    null = part.null(Condition(vector=codes[0])).vector
    assert null is not None
    assert torch.equal(null, part.any[None])
    assert part.gives == Ports(vector=8)


def test_shapes_are_drawn_in_turn_and_stay_in_range() -> None:
    data = Shapes(size=16, count=6)
    samples = [data.get(index) for index in range(6)]
    assert [sample["label"] for sample in samples] == [0, 1, 0, 1, 0, 1]
    for sample in samples:
        assert sample["image"].shape == data.space.shape == (1, 16, 16)
        assert float(sample["image"].min()) == -1
        assert float(sample["image"].max()) > 0
    assert not torch.equal(samples[0]["image"], samples[2]["image"])


def test_a_shift_moves_by_whole_pixels_and_repeats_the_edge() -> None:
    image = torch.arange(9.0).reshape(1, 3, 3)
    moved = {
        tuple(Shift(pixels=1)({"image": image}, torch.Generator().manual_seed(s))["image"][0, 0].tolist())
        for s in range(60)
    }
    rows = [(0, 1, 2), (3, 4, 5)]
    wanted = {tuple(row[max(0, min(2, i + d))] for i in range(3)) for row in rows for d in (-1, 0, 1)}
    assert moved == wanted


def test_spread_is_0_for_equal_images_and_ignores_order_and_constants() -> None:
    images = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert spread([images[:1], images[:1]]) == 0
    assert spread([images]) == pytest.approx(spread([images.flip(0)[:2] + 3, images.flip(0)[2:] + 3]))
    assert math.isnan(spread([]))
