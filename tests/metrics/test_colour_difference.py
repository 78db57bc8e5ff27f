"""Colour differences: Sharma's pairs, another library, and laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color
from torch import Tensor

from diffloom_metrics.colour_difference import cie76, ciede2000, lab

PAIRS = (
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (50, 3.2592, 0.3350), 1.0000),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
)


def colour(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None]


@pytest.mark.parametrize(("one", "other", "difference"), PAIRS)
def test_sharmas_pairs(one: tuple[float, ...], other: tuple[float, ...], difference: float) -> None:
    assert ciede2000(colour(*one), colour(*other)).item() == pytest.approx(difference, abs=1e-4)
    assert ciede2000(colour(*other), colour(*one)).item() == pytest.approx(difference, abs=1e-4)


def test_known_colours() -> None:
    red, green = (lab(colour(*c)[..., None, None])[..., 0, 0] for c in ((1, -1, -1), (-1, 1, -1)))
    white, black = (lab(colour(*c)[..., None, None])[..., 0, 0] for c in ((1, 1, 1), (-1, -1, -1)))
    assert red[0].tolist() == pytest.approx([53.2406, 80.0923, 67.2028], abs=2e-3)
    assert ciede2000(red, green).item() == pytest.approx(86.6085, abs=2e-3)
    assert ciede2000(white, black).item() == pytest.approx(100.0, abs=1e-3)


def test_skimage_says_the_same() -> None:
    images = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = [color.rgb2lab(image.permute(1, 2, 0).numpy()) for image in images]
    ours = lab(images * 2 - 1)
    for mine, wanted in zip(ours, theirs, strict=True):
        assert np.allclose(mine.permute(1, 2, 0).numpy(), wanted, atol=1e-9)
    assert np.allclose(ciede2000(ours[:1], ours[1:])[0].numpy(), color.deltaE_ciede2000(*theirs), atol=1e-9)
    assert np.allclose(cie76(ours[:1], ours[1:])[0].numpy(), color.deltaE_cie76(*theirs), atol=1e-9)


@given(st.lists(st.floats(-60, 60), min_size=6, max_size=6))
@settings(deadline=None, max_examples=50)
def test_differences_are_symmetric_and_none_of_equal_colours(values: list[float]) -> None:
    one, other = colour(50 + values[0] / 2, *values[1:3]), colour(50 + values[3] / 2, *values[4:])
    for difference in (cie76, ciede2000):
        assert difference(one, one).item() == 0
        assert torch.allclose(difference(one, other), difference(other, one), atol=1e-9)
