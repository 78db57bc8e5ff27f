"""Colour correction: the identities of the two formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffloom_stablesr.colour import adain, corrected, low_band, wavelet


def images(bands: int = 3, side: int = 48, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, reference = torch.rand(2, 2, bands, side, side, generator=generator, dtype=torch.float64)
    return x * 1.6 - 0.8, reference * 0.7 - 0.1


@settings(deadline=None, max_examples=30)
@given(bands=st.integers(1, 5), seed=st.integers(0, 99))
def test_wavelet_keeps_the_details_and_takes_the_low_band(bands: int, seed: int) -> None:
    x, reference = images(bands, 24, seed)
    torch.testing.assert_close(wavelet(x, x), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(wavelet(x, reference) - low_band(reference), x - low_band(x))
    torch.testing.assert_close(wavelet(x + 0.4, reference), wavelet(x, reference))


def test_low_band_of_a_flat_reference() -> None:
    x, _ = images()
    out = wavelet(x, torch.full_like(x, 0.3))
    torch.testing.assert_close(low_band(out) - 0.3, low_band(x) - low_band(low_band(x)))


def test_low_band_is_the_published_chain_of_convolutions() -> None:
    x, _ = images(2)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=x.dtype).div(16).expand(2, 1, 3, 3)
    low = x
    for apart in (1, 2, 4, 8, 16):
        padded = torch.nn.functional.pad(low, (apart,) * 4, mode="replicate")
        low = torch.nn.functional.conv2d(padded, kernel, groups=2, dilation=apart)
    torch.testing.assert_close(low_band(x), low)


def test_adain_takes_mean_and_spread() -> None:
    x, reference = images()
    out = adain(x, reference)
    torch.testing.assert_close(out.mean((2, 3)), reference.mean((2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((2, 3)), reference.std((2, 3)), rtol=1e-3, atol=0)
    torch.testing.assert_close(adain(out, reference), out, atol=1e-4, rtol=0)


@pytest.mark.parametrize("how", ["adain", "wavelet"])
def test_a_tint_is_removed(how: str) -> None:
    x, _ = images()
    tinted = x + torch.tensor([0.3, 0.0, -0.2], dtype=x.dtype).view(1, 3, 1, 1)
    fixed = corrected(tinted, x, how)  # type: ignore[arg-type]
    assert (fixed - x).abs().mean() < 0.05 * (tinted - x).abs().mean()
    assert corrected(tinted, x, "none") is tinted
