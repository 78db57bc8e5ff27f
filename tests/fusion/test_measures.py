"""The figures of fusion: published numbers, laws, and second implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import shannon_entropy
from sklearn.metrics import mutual_info_score
from torch import Tensor

from diffloom_fusion import measures as m
from diffloom_metrics import fidelity  # noqa: F401  # makes torchvision importable

from torchmetrics.functional.image import visual_information_fidelity  # isort: skip

Array = NDArray[np.float64]


def known() -> dict[str, Tensor]:
    """Return images of 16×16, each (1, 16, 16), whose figures are published in the notes that this follows."""
    x, y = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="xy")
    ramp, ramp2 = 16 * x, 16 * y
    made = {"ramp": ramp, "ramp2": ramp2, "checker": 255 * ((x + y) % 2), "avg": (ramp + ramp2) // 2}
    return {name: image.double()[None] for name, image in made.items()}


def images(count: int = 3, size: tuple[int, int] = (48, 52), seed: int = 0) -> list[Tensor]:
    """Return smooth images with some noise, each (2, H, W) in 0 … 255."""
    draws = np.random.default_rng(seed)
    made = [ndimage.gaussian_filter(draws.normal(size=(2, *size)), (0, 2, 2)) for _ in range(count)]
    return [torch.tensor((v - v.min()) / (v.max() - v.min()) * 255 * 0.98 + draws.normal(size=v.shape)) for v in made]


def test_known_figures_of_one_image() -> None:
    k = known()
    assert [m.entropy(k[n]).item() for n in ("ramp", "checker", "avg")] == pytest.approx([4.0, 1.0, 4.715940], abs=1e-6)
    frequencies = [m.spatial_frequency(k[n]).item() for n in ("ramp", "checker", "avg")]
    assert frequencies == pytest.approx([16.0, 360.6245, 11.3137], abs=1e-4)
    assert [m.deviation(k[n]).item() for n in ("ramp", "checker")] == pytest.approx([73.756356, 127.5], abs=1e-6)
    assert m.average_gradient(k["ramp"]).item() == pytest.approx(12.872486, abs=1e-6)
    flat = torch.full((1, 16, 16), 90.0, dtype=torch.float64)
    assert (m.deviation(flat).item(), m.spatial_frequency(flat).item(), m.entropy(flat).item()) == (0, 0, 0)
    # a board of 0 and 1: both root mean square differences are 1
    assert m.spatial_frequency(k["checker"] / 255).item() == pytest.approx(2**0.5)


def test_known_figures_of_a_fused_image() -> None:
    k = known()
    ramp, ramp2, avg = k["ramp"], k["ramp2"], k["avg"]
    assert m.mutual_information(ramp, [ramp]).item() == pytest.approx(4.0)
    assert m.mutual_information(ramp, [ramp2]).item() == pytest.approx(0.0, abs=1e-12)
    assert m.mutual_information(avg, [ramp, ramp2]).item() == pytest.approx(1.431879, abs=1e-6)
    assert m.edge_transfer(ramp, [ramp, ramp]).item() == pytest.approx(0.974794, abs=1e-6)
    assert m.edge_transfer(avg, [ramp, ramp2]).item() == pytest.approx(0.421424, abs=1e-6)


def test_an_image_fused_with_itself_keeps_everything() -> None:
    (a,) = images(1)
    assert torch.allclose(m.mutual_information(a, [a, a]), 2 * m.entropy(a))
    assert torch.allclose(m.information_fidelity(a, [a, a]), torch.full((2,), 2.0, dtype=torch.float64), atol=1e-3)
    perfect = 0.9994 / (1 + np.exp(-7.5)) * 0.9879 / (1 + np.exp(-4.4))
    assert torch.allclose(m.edge_transfer(a, [a, a]), torch.full((2,), perfect, dtype=torch.float64), atol=1e-4)


def test_entropy_and_information_agree_with_other_libraries() -> None:
    f, a, b = images()
    for i in range(2):
        whole = [x[i].round().clamp(0, 255).numpy().astype(np.uint8) for x in (f, a, b)]
        assert m.entropy(f)[i].item() == pytest.approx(shannon_entropy(whole[0]))
        theirs = sum(mutual_info_score(whole[0].ravel(), s.ravel()) for s in whole[1:]) / np.log(2)
        assert m.mutual_information(f, [a, b])[i].item() == pytest.approx(theirs)


def test_information_fidelity_agrees_with_torchmetrics() -> None:
    f, a, b = images(size=(64, 57))
    theirs = [
        sum(float(visual_information_fidelity(f[i][None, None], s[i][None, None])) for s in (a, b)) for i in range(2)
    ]
    assert m.information_fidelity(f, [a, b]).tolist() == pytest.approx(theirs, rel=1e-9)
    assert m.information_fidelity(f[:, :40], [a[:, :40]]).isnan().all()


def test_information_fidelity_of_the_known_pair() -> None:
    y, x = torch.meshgrid(*[torch.arange(64, dtype=torch.float64)] * 2, indexing="ij")
    a = 0.5 + 0.4 * torch.sin(2 * torch.pi * x / 16) * torch.cos(2 * torch.pi * y / 16)
    b = (a + 0.05 * torch.sin(2 * torch.pi * (x + 2 * y) / 7)).clamp(0, 1)
    assert m.information_fidelity(255 * b[None], [255 * a[None]]).item() == pytest.approx(0.557714, abs=1e-6)


def plainly(f: Array, a: Array, b: Array) -> dict[str, float]:
    """Return SF, AG, SCD and Q^{AB/F}, pixel by pixel as their definitions are written."""
    height, width = f.shape
    rows = sum((f[i, j] - f[i, j - 1]) ** 2 for i in range(height) for j in range(1, width)) / (height * (width - 1))
    columns = sum((f[i, j] - f[i - 1, j]) ** 2 for i in range(1, height) for j in range(width)) / ((height - 1) * width)
    steps = np.gradient(f)
    ag = sum(np.sqrt((gx**2 + gy**2) / 2) for gx, gy in zip(steps[0].ravel(), steps[1].ravel(), strict=True))
    scd = np.corrcoef((f - b).ravel(), a.ravel())[0, 1] + np.corrcoef((f - a).ravel(), b.ravel())[0, 1]
    (gf, af), sides = edges(f), [edges(a), edges(b)]
    top = bottom = 0.0
    for i in range(height):
        for j in range(width):
            for g, angle in sides:
                strong = max(g[i, j], gf[i, j])
                kept = min(g[i, j], gf[i, j]) / strong if strong else 0.0
                turn = 1 - abs(angle[i, j] - af[i, j]) / (np.pi / 2)
                q = 0.9994 / (1 + np.exp(-15 * (kept - 0.5))) * 0.9879 / (1 + np.exp(-22 * (turn - 0.8)))
                top, bottom = top + q * g[i, j], bottom + g[i, j]
    shape = (height - 1) * (width - 1)
    return {"sf": float(np.sqrt(rows + columns)), "ag": float(ag / shape), "scd": float(scd), "q": float(top / bottom)}


def edges(image: Array) -> tuple[Array, Array]:
    sx = ndimage.sobel(image, 1, mode="constant")
    sy = -ndimage.sobel(image, 0, mode="constant")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.hypot(sx, sy), np.where(sx == 0, np.pi / 2, np.arctan(sy / sx))


def test_the_others_agree_with_their_definitions_pixel_by_pixel() -> None:
    f, a, b = images(size=(20, 23))
    for i in range(2):
        theirs = plainly(*(x[i].numpy() for x in (f, a, b)))
        ours = {
            "sf": m.spatial_frequency(f)[i].item(),
            "ag": m.average_gradient(f)[i].item(),
            "scd": m.difference_correlation(f, [a, b])[i].item(),
            "q": m.edge_transfer(f, [a, b])[i].item(),
        }
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_what_is_undefined_is_no_number() -> None:
    flat = torch.full((1, 48, 48), 90.0, dtype=torch.float64)
    assert m.edge_transfer(flat, [flat * 0, flat * 0]).isnan().all()
    assert m.difference_correlation(flat, [flat]).isnan().all()


@given(st.integers(0, 50))
@settings(deadline=None, max_examples=8)
def test_sources_may_change_places_and_images_turn(seed: int) -> None:
    f, a, b = images(size=(44, 44), seed=seed)
    for of in (m.mutual_information, m.difference_correlation, m.information_fidelity, m.edge_transfer):
        assert torch.allclose(of(f, [a, b]), of(f, [b, a]))
        assert torch.allclose(of(f, [a, b])[:1], of(f[:1], [a[:1], b[:1]]))
    for one in (m.entropy, m.deviation, m.spatial_frequency, m.average_gradient):
        assert torch.allclose(one(f), one(f.mT))


def test_grey_is_luma_of_colours_and_the_mean_of_bands() -> None:
    colour = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    assert m.grey(colour).item() == pytest.approx(0.299 * 255)
    assert m.grey(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)).item() == pytest.approx(127.5)
