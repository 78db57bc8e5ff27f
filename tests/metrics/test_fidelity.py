from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.errors import DataError, IncompatibleParts
from tests.metrics.fakes import Judged, Listed, images, listed, same

from diffloom_metrics.fidelity import PSNR, SSIM, luma, psnr, ssim  # isort: skip  makes torchvision importable

from torchmetrics.functional.image import peak_signal_noise_ratio  # isort: skip


def pair() -> tuple[Tensor, Tensor]:
    """Return two images of 64×64 in [0, 1], (1, 1, 64, 64) float64, whose figures are known."""
    y, x = torch.meshgrid(*[torch.arange(64, dtype=torch.float64)] * 2, indexing="ij")
    a = 0.5 + 0.4 * torch.sin(2 * torch.pi * x / 16) * torch.cos(2 * torch.pi * y / 16)
    b = (a + 0.05 * torch.sin(2 * torch.pi * (x + 2 * y) / 7)).clamp(0, 1)
    return a[None, None], b[None, None]


def signed(image: Tensor) -> Tensor:
    return image * 2 - 1


def test_psnr_of_the_known_pair() -> None:
    a, b = pair()
    assert float((a - b).square().mean()) == pytest.approx(0.00124969482, abs=1e-10)
    assert psnr(signed(a), signed(b)).item() == pytest.approx(29.031960, abs=1e-6)
    assert psnr(a, b).item() == pytest.approx(35.052560, abs=1e-6)  # half the difference: 6.0206 dB more


def test_psnr_agrees_with_torchmetrics() -> None:
    x, y = images(2, 4, 3, 9, 7)
    theirs = peak_signal_noise_ratio(x, y, data_range=2.0, reduction="none", dim=(1, 2, 3))
    assert torch.allclose(psnr(x, y).float(), theirs, atol=1e-4)


def test_ssim_of_the_known_pair_over_all_pixels() -> None:
    a, b = pair()
    assert ssim(signed(a), signed(b)).item() == pytest.approx(0.967185, abs=1e-6)


def test_ssim_agrees_with_skimage_inside_the_borders() -> None:
    a, b = pair()
    value, theirs = structural_similarity(
        a[0, 0].numpy(), b[0, 0].numpy(), data_range=1.0, full=True,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert value == pytest.approx(0.968479, abs=1e-6)
    # Both see the same pixels where no border is near. The border's share of the mean is then the difference:
    # reflecting the pair by the window's radius, so that skimage's border rule has no say, gives our value.
    grown = [np.pad(x[0, 0].numpy(), 5, mode="reflect") for x in (a, b)]
    _, grown_map = structural_similarity(
        *grown, data_range=1.0, full=True, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(signed(a), signed(b)).item() == pytest.approx(grown_map[5:-5, 5:-5].mean(), abs=1e-9)
    assert theirs[5:-5, 5:-5].mean() == pytest.approx(value, abs=1e-12)


def test_ssim_of_black_and_white_is_that_of_the_unit_range() -> None:
    black, white = -torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    assert ssim(black, white).item() == pytest.approx(9.999e-05, abs=1e-8)


@given(st.integers(0, 99), st.sampled_from([1, 3, 5]))
@settings(deadline=None, max_examples=20)
def test_laws_of_both(seed: int, channels: int) -> None:
    x, y = images(2, 3, channels, 12, 16, seed=seed)
    assert torch.allclose(psnr(x, y), psnr(y, x))
    assert torch.allclose(ssim(x, y), ssim(y, x))
    assert torch.isinf(psnr(x, x)).all()
    assert torch.allclose(ssim(x, x), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(psnr(x, x + 0.2), torch.full((3,), 20.0, dtype=torch.float64), atol=1e-4)
    for figure in (psnr, ssim):
        one_by_one = torch.cat([figure(x[i : i + 1], y[i : i + 1]) for i in range(3)])
        assert figure(x, y).shape == (3,)
        assert torch.allclose(figure(x, y), one_by_one)


def judged(tmp_path: Path) -> Judged:
    return Judged(
        listed(100, 1, 12, 12),
        tmp_path,
        lambda batch: {"image": batch["image"] * 0.5},
    )


def test_the_mean_is_over_images_not_batches(tmp_path: Path) -> None:
    evaluation = judged(tmp_path)
    truth = torch.cat([batch["image"] for batch, _ in evaluation.pairs()])
    found = PSNR().measure(evaluation)
    assert found == {"psnr": pytest.approx(float(psnr(truth * 0.5, truth).mean()), rel=1e-9)}
    assert SSIM().measure(evaluation) == {"ssim": pytest.approx(float(ssim(truth * 0.5, truth).mean()), rel=1e-9)}


def test_exact_images_count_as_the_cap_and_values_are_held_to_the_range(tmp_path: Path) -> None:
    exact = Judged(listed(10, 1, 12, 12), tmp_path, same)
    assert PSNR().measure(exact) == {"psnr": 100.0}
    assert PSNR(cap=50).measure(exact) == {"psnr": 50.0}
    white = Judged(listed(10, 1, 12, 12), tmp_path, lambda batch: {"image": torch.full_like(batch["image"], 9.0)})
    ones = torch.cat([batch["image"] for batch, _ in white.pairs()])
    assert PSNR().measure(white)["psnr"] == pytest.approx(float(psnr(torch.ones_like(ones), ones).mean()))


def test_nothing_to_judge_is_no_number(tmp_path: Path) -> None:
    assert np.isnan(PSNR().measure(Judged(listed(10, 1, 12, 12), tmp_path, same, count=0))["psnr"])


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    data = listed(10, 1, 12, 12)

    def smaller(batch: Batch) -> Batch:
        return {"image": batch["image"][..., ::2, ::2]}

    with pytest.raises(DataError, match="differ in shape"):
        PSNR().measure(Judged(data, tmp_path, smaller))
    with pytest.raises(DataError, match="has no image 'visible'"):
        PSNR(prediction="visible").measure(Judged(data, tmp_path, same))
    with pytest.raises(IncompatibleParts, match="no true image"):
        PSNR().measure(Judged(data, tmp_path, same, task=SimpleNamespace(paired=False)))
    with pytest.raises(DataError, match="too small"):
        SSIM().measure(Judged(listed(4, 1, 10, 12), tmp_path, same))


def test_luma_is_that_of_scikit_image() -> None:
    rgb = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    wanted = rgb2ycbcr(rgb.permute(0, 2, 3, 1).numpy())[..., 0]
    np.testing.assert_allclose((luma(signed(rgb))[:, 0].numpy() + 1) * 127.5, wanted, atol=1e-9)
    ends = luma(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)).flatten()
    assert ((ends + 1) * 127.5).tolist() == pytest.approx([16, 235])


def test_figures_of_luma_ignore_colour(tmp_path: Path) -> None:
    x = torch.rand(2, 3, 16, 16) - 0.5
    weights = torch.tensor([65.481, 128.553, 24.966])
    tint = torch.stack([weights[1], -weights[0], torch.tensor(0.0)]).view(1, 3, 1, 1) / 1000  # of no luma
    data = Listed([{"image": image} for image in x])
    evaluation = Judged(data, tmp_path, lambda batch: {"image": batch["image"] + tint})
    assert PSNR(channel="y").measure(evaluation)["psnr-y"] == 100
    assert PSNR().measure(evaluation)["psnr"] < 40
    assert SSIM(channel="y").measure(evaluation)["ssim-y"] == pytest.approx(1, abs=1e-6)
    with pytest.raises(IncompatibleParts, match="set `channel: all`"):
        luma(torch.zeros(1, 4, 8, 8))


def test_psnr_within_a_mask_looks_nowhere_else(tmp_path: Path) -> None:
    image = images(2, 3, 8, 8)
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, :4] = 1
    samples = [{"image": x * 0.5, "hole": m} for x, m in zip(image, mask, strict=True)]

    def off(inside: float) -> Judged:
        def answer(batch: Batch) -> Batch:
            return {"image": batch["image"] + torch.where(batch["hole"] > 0, inside, 0.4)}

        return Judged(Listed(samples[:1]), tmp_path, answer, count=1)

    metric = PSNR(within="hole")
    assert metric.measure(off(0.1)) == {"psnr:hole": pytest.approx(10 * np.log10(4 / 0.01), abs=1e-4)}
    assert metric.measure(off(0.2)) == {"psnr:hole": pytest.approx(10 * np.log10(4 / 0.04), abs=1e-4)}
    nothing = Judged(Listed(samples[1:]), tmp_path, lambda b: {"image": b["image"] + 0.4}, count=1)
    assert metric.measure(nothing) == {"psnr:hole": 100}
    broken = Judged(Listed(samples[:1]), tmp_path, lambda b: {"image": b["image"] * np.nan}, count=1)
    assert np.isnan(metric.measure(broken)["psnr:hole"])
    with pytest.raises(DataError, match="no image 'mask'"):
        PSNR(within="mask").measure(off(0.1))
