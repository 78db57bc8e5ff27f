"""Hints drawn from brightness, each against what it must show."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from skimage.feature import canny as skimage_canny
from torch import Tensor

from diffloom.errors import DataError
from diffloom_data.geometry import Flip
from diffloom_hints.blur import Blurred
from diffloom_hints.edges import Canny, Sobel
from diffloom_hints.filters import blurred
from diffloom_hints.hint import DrawnHint, Hint, brightness
from diffloom_hints.lines import Lines
from diffloom_hints.segments import segments
from diffloom_hints.sketch import Sketch
from diffloom_hints.soft import SoftEdges

DRAWN: tuple[type[DrawnHint], ...] = (Canny, Sobel, Lines, Sketch)
HINTS: tuple[type[Hint], ...] = (*DRAWN, SoftEdges, Blurred)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hinted(hint: Hint, image: Tensor, seed: int = 0) -> Tensor:
    drawn: Tensor = hint({"image": image}, stream(seed))[hint.key]
    return drawn


def step(height: int = 24, width: int = 32, at: int = 16) -> Tensor:
    """Black to the left of a column, white from there on."""
    return torch.where(torch.arange(width) < at, -1.0, 1.0).expand(1, height, width).clone()


def picture(seed: int = 0, bands: int = 3, side: int = 32) -> Tensor:
    """Boxes of random brightness on soft ground."""
    rng = np.random.default_rng(seed)
    image = np.full((bands, side, side), -0.5)
    for _ in range(6):
        top, left = rng.integers(0, side - 6, 2)
        tall, wide = rng.integers(4, side // 2, 2)
        image[:, top : top + tall, left : left + wide] = rng.uniform(-1, 1, (bands, 1, 1))
    return blurred(torch.from_numpy(image).float(), 0.6)


@given(
    st.sampled_from(HINTS), st.integers(1, 6), st.tuples(st.integers(4, 40), st.integers(4, 40)), st.integers(0, 999)
)
@settings(deadline=None, max_examples=60)
def test_a_hint_is_float32_in_0_to_1_at_the_size_of_any_image(
    cls: type[Hint], bands: int, size: tuple[int, int], seed: int
) -> None:
    image = torch.rand(bands, *size, generator=stream(seed)) * 4 - 2
    hint = hinted(cls(), image)
    assert hint.dtype == torch.float32
    assert hint.shape == (bands if cls is Blurred else 1, *size)
    assert bool(hint.isfinite().all())
    assert 0 <= float(hint.min()) <= float(hint.max()) <= 1


@pytest.mark.parametrize("cls", HINTS)
def test_what_is_flat_has_no_edges_whatever_its_brightness(cls: type[Hint]) -> None:
    for level in (-1.0, 0.2, 1.0):
        hint = hinted(cls(), torch.full((3, 24, 24), level))
        expected = (level + 1) / 2 if cls is Blurred else 0.0
        assert torch.allclose(hint, torch.full_like(hint, expected), atol=1e-5)


@pytest.mark.parametrize("cls", HINTS)
def test_hints_follow_flips_and_right_angles(cls: type[Hint]) -> None:
    image = picture(3)
    for turned in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: torch.rot90(x, 1, (-2, -1))):
        before, after = turned(hinted(cls(), image)), hinted(cls(), turned(image))
        if cls is Canny:  # of two equally strong pixels across a step, it keeps the left or the upper one
            assert _share_near(before, after) > 0.97
            assert _share_near(after, before) > 0.97
        else:
            assert torch.allclose(before, after, atol=2e-3)


def _share_near(of: Tensor, by: Tensor) -> float:
    """Return the share of the pixels set in one map that have one set in another within a pixel."""
    reach = torch.nn.functional.max_pool2d(by[None], 3, stride=1, padding=1)[0]
    return float((of * reach).sum() / of.sum())


@pytest.mark.parametrize("cls", DRAWN)
def test_brightness_is_luma_of_three_bands_and_the_mean_of_others(cls: type[DrawnHint]) -> None:
    colour = picture(1)
    luma = (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])[None]
    assert torch.allclose(hinted(cls(), colour), hinted(cls(), luma), atol=1e-4)
    five = picture(2, bands=5)
    assert torch.allclose(hinted(cls(), five), hinted(cls(), five.mean(0, keepdim=True)), atol=1e-4)
    assert torch.equal(hinted(cls(bands=(4,)), five), hinted(cls(), five[4:]))
    assert torch.equal(hinted(cls(copies=3), five), hinted(cls(), five).expand(3, -1, -1))


def test_white_is_1_in_any_number_of_bands() -> None:
    for bands in (1, 2, 3, 7):
        assert torch.allclose(brightness(torch.ones(bands, 2, 2)), torch.ones(2, 2))


def test_canny_puts_a_step_where_it_is() -> None:
    edges = hinted(Canny(), step(at=16))[0]
    assert set(edges.flatten().tolist()) == {0.0, 1.0}
    assert set(edges.nonzero()[:, 1].tolist()) == {15}
    assert int(edges.sum()) == 24


def test_canny_draws_between_its_thresholds_only_what_continues_an_edge() -> None:
    weak = torch.zeros(1, 24, 32)
    weak[..., 16:] = 0.3  # a step of 0.15 in 0 … 1: its strength is 0.15 · 2.59 after the blur
    strength = 0.15 * 2.59
    assert float(hinted(Canny(low=0.9 * strength, high=0.95 * strength), weak).sum()) == 24
    assert float(hinted(Canny(low=0.9 * strength, high=1.05 * strength), weak).sum()) == 0
    fading = torch.zeros(1, 24, 32)
    fading[..., 16:] = torch.linspace(0.4, 0.3, 24)[:, None]
    edges = hinted(Canny(low=0.9 * strength, high=1.05 * strength), fading)[0]
    assert bool((edges[:, 15:17].sum(1) == 1).all())


def test_canny_agrees_with_scikit_image() -> None:
    """Two implementations of one paper: nearly all pixels lie within a pixel of each other's."""
    image = picture(5, side=64)
    ours = hinted(Canny(low=0.4, high=0.8), image)
    grey = brightness((image + 1) / 2).numpy()
    theirs = skimage_canny(grey, sigma=1.0, low_threshold=0.4, high_threshold=0.8)
    theirs = torch.from_numpy(theirs).float()[None]
    assert float(theirs.sum()) > 60
    assert _share_near(ours, theirs) > 0.9
    assert _share_near(theirs, ours) > 0.9


def test_varied_thresholds_depend_on_the_generator_alone_and_change_the_density() -> None:
    image, hint = blurred(torch.randn(1, 48, 48, generator=stream()), 1.0), Canny(vary=4.0)
    counts = [float(hinted(hint, image, seed).sum()) for seed in range(12)]
    assert counts == [float(hinted(hint, image, seed).sum()) for seed in range(12)]
    assert len(set(counts)) > 3
    assert min(counts) < float(hinted(Canny(), image).sum()) <= max(counts)
    with pytest.raises(ValueError, match="above"):
        Canny(low=0.5, high=0.2)


def test_sobel_of_a_ramp_is_its_slope() -> None:
    slope = 0.01
    ramp = (2 * slope * torch.arange(40.0) - 1).expand(1, 30, 40)
    inside = hinted(Sobel(gain=1.0), ramp)[0, :, 1:-1]
    assert torch.allclose(inside, torch.full_like(inside, 2 * slope), atol=1e-5)  # a step of 1 over two pixels reads 1
    diagonal = hinted(Sobel(gain=1.0), ramp[:, :, :30] + ramp[:, :, :30].mT + 1)[0, 2:-2, 2:-2]
    assert torch.allclose(diagonal, torch.full_like(diagonal, 2 * slope * math.sqrt(2)), atol=1e-4)


def test_sobel_of_a_step_from_black_to_white_is_1() -> None:
    edges = hinted(Sobel(gain=1.0), step(at=16))[0]
    assert torch.allclose(edges[:, 15:17], torch.ones(24, 2))
    assert float(edges[:, :14].max()) == 0


@given(st.floats(0, math.pi), st.integers(0, 999))
@settings(deadline=None, max_examples=25)
def test_a_line_that_is_drawn_comes_back_as_a_line(angle: float, seed: int) -> None:
    """Anti-aliased by drawing large; both sides of the stroke are found, within two pixels of it."""
    side, grown, length = 64, 8, 44
    middle = np.random.default_rng(seed).uniform(30, 34, 2)
    along = np.array([math.sin(angle), math.cos(angle)])
    ends = [middle - along * length / 2, middle + along * length / 2]
    canvas = Image.new("L", (side * grown, side * grown))
    ImageDraw.Draw(canvas).line([tuple((end[::-1] + 0.5) * grown) for end in ends], fill=255, width=2 * grown)
    image = torch.from_numpy(np.array(canvas.resize((side, side), Image.Resampling.BOX))).float()[None] / 127.5 - 1
    hint = hinted(Lines(), image)[0]
    y, x = (hint > 0.5).nonzero().T.double().numpy() - middle[:, None]
    across, lengthwise = np.abs(y * along[1] - x * along[0]), y * along[0] + x * along[1]
    inner = np.abs(lengthwise) < length / 2 - 3
    assert np.abs(across[inner]).max() <= 1 + 2 + 0.5  # the stroke's border is 1 from its middle
    assert np.abs(lengthwise).max() <= length / 2 + 3
    covered = {round(place) for place in lengthwise[across <= 3]}
    assert len([n for n in range(-18, 19) if n in covered]) >= 33


def test_the_ends_of_a_border_are_found_within_two_pixels() -> None:
    image = torch.full((40, 60), 0.0, dtype=torch.float64)
    image[12:, 10:50] = 1.0
    across, down = np.gradient(blurred(image, 1.0).numpy())[::-1]
    found = segments(across, down, strength=0.1, length=20, width=1.5)
    top = next(line for line in found if abs(line[0, 0] - line[1, 0]) < 1)
    assert sorted(top[:, 1]) == pytest.approx([10, 49], abs=2)
    assert top[:, 0] == pytest.approx([11.5, 11.5], abs=0.6)


def test_a_circle_has_no_long_line() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = torch.where(torch.hypot(y - 31.5, x - 31.5) < 20, 1.0, -1.0)[None]
    assert float(hinted(Lines(length=24.0), disc).sum()) == 0
    assert float(hinted(Lines(length=24.0), step(64, 64, 30)).sum()) > 60


def test_a_sketch_strokes_the_dark_line_and_not_the_bright_one() -> None:
    ground = torch.zeros(1, 32, 32)
    dark, bright = ground.clone(), ground.clone()
    dark[:, 15:17], bright[:, 15:17] = -0.8, 0.8
    strokes = hinted(Sketch(), dark)[0]
    assert float(strokes[15:17].min()) > 0.9
    assert float(strokes[:11].max()) < 0.05
    assert float(hinted(Sketch(), bright)[0, 14:18].max()) < 0.05


def test_a_sketch_is_the_papers_formula() -> None:
    image, sigma, phi = picture(4, bands=1), 1.2, 30.0
    grey = ((image + 1) / 2).double()
    difference = blurred(grey, sigma) - 0.97 * blurred(grey, 1.6 * sigma)
    paper = torch.where(difference >= -0.02, 1.0, 1 + torch.tanh(phi * (difference + 0.02)))
    hint = hinted(Sketch(sigma=sigma, tau=0.97, epsilon=-0.02, phi=phi), image)
    assert torch.allclose(hint, 1 - paper.float(), atol=1e-4)


@given(st.floats(0.5, 3.0), st.integers(1, 4))
@settings(deadline=None, max_examples=10)
def test_blur_keeps_the_mean_and_spreads_by_sigma(sigma: float, bands: int) -> None:
    image = torch.full((bands, 41, 41), -1.0)
    image[:, 20, 20] = 1.0
    hint = hinted(Blurred(sigma=sigma), image)
    assert torch.allclose(hint.sum((-2, -1)), torch.ones(bands), atol=1e-5)
    places = torch.arange(41.0) - 20
    spread = (hint[0].sum(0) * places.square()).sum().sqrt()
    assert float(spread) == pytest.approx(sigma, rel=0.1)


def test_blurred_bands_come_in_the_order_asked_for() -> None:
    image = picture(8, bands=5)
    assert torch.equal(hinted(Blurred(bands=(4, 0)), image), hinted(Blurred(), image)[[4, 0]])


def test_soft_edges_without_weights_are_classical_and_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    from diffloom_hints import soft

    soft._say_once.cache_clear()
    hint = SoftEdges()
    assert hint.note == "classical"
    for _ in range(3):
        hinted(hint, step())
    assert [record.message for record in caplog.records if "HED" in record.message] == [
        "no weights of HED are named: soft edges are classical, gradients over three scales"
    ]


def test_soft_edges_prefer_borders_to_grain() -> None:
    """Beside a step, fine stripes of the same contrast: Sobel sees both alike, soft edges the step."""
    image = torch.full((1, 32, 64), -0.5)
    image[..., 16:32] = 0.5
    image[..., 40::2] = 0.5
    soft, plain = (hinted(hint, image)[0, 8:24] for hint in (SoftEdges(gain=1.0), Sobel(gain=1.0)))
    assert float(soft[:, 15:17].mean()) > 8 * float(soft[:, 48:56].mean())
    assert float(soft[:, 15:17].mean()) > 0.15
    assert float(plain[:, 15:17].mean()) == pytest.approx(0.5, abs=0.01)


def test_a_key_that_is_taken_and_a_band_that_is_not_there_are_refused() -> None:
    sample = {"image": torch.zeros(2, 8, 8)}
    once = Canny()(sample, stream())
    with pytest.raises(DataError, match="'hint' already"):
        Sobel()(once, stream())
    assert set(Sobel(key="other")(once, stream())) == {"image", "hint", "other"}
    with pytest.raises(DataError, match="no band 2"):
        Canny(bands=(2,))(sample, stream())
    with pytest.raises(DataError, match="no 'pre'"):
        Canny(of="pre")(sample, stream())
    with pytest.raises(DataError, match="'hint'"):
        Flip()(once, stream())  # hints come after all transforms of geometry


def test_a_hint_of_a_smaller_image_has_the_images_size() -> None:
    sample = {"image": torch.zeros(1, 32, 32), "low_res": step(8, 8, 4)}
    hint = Canny(of="low_res")(sample, stream())["hint"]
    assert hint.shape == (1, 32, 32)
    assert Canny(of="low_res").needs == ("low_res",)
    assert set(hint.nonzero()[:, 2].tolist()) <= {14, 15, 16, 17}
