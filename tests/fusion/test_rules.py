"""The rules and the small network: laws that hold for all of them, and what makes each what it is."""

from typing import Any

import pytest
import torch
from kornia.filters import guided_blur
from torch import Tensor

import diffloom
from diffloom.errors import DataError
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom.system import Plan, System
from diffloom_ddpm.identity import Identity
from diffloom_fusion.blend import Blend, grey
from diffloom_fusion.cnn import DenseFuse
from diffloom_fusion.rules import Average, GuidedFilter, Laplacian, Maximum, guided, pyramid, window_mean

RULES: list[Any] = [Average, Maximum, Laplacian, GuidedFilter]
SPACE = Space(4, (24, 32))


def system(task: Blend) -> System:
    torch.manual_seed(0)
    return System(Plan(data_space=SPACE), autoencoder=Identity(space=SPACE), task=task).eval()


def scene(*size: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = size or (24, 32)
    visible = torch.rand(2, 3, *size, generator=generator) * 2 - 1
    return {"visible": visible, "infrared": torch.rand(2, 1, *size, generator=generator) * 2 - 1}


def fused(task: Blend, batch: dict[str, Tensor]) -> Tensor:
    return system(task).predict(batch, seeds=[0, 1])["image"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("colour", ["channels", "luma"])
@pytest.mark.parametrize("size", [(24, 32), (7, 45), (1, 3)])
def test_a_scene_seen_twice_alike_is_given_back(rule: Any, colour: str, size: tuple[int, int]) -> None:
    visible = scene(*size)["visible"][:, :1].expand(-1, 3, -1, -1)
    found = fused(rule(colour=colour), {"visible": visible, "infrared": visible[:, :1]})
    assert torch.allclose(found, visible, atol=1e-5)


@pytest.mark.parametrize("rule", [*RULES, DenseFuse])
def test_what_is_fused_is_as_large_and_as_colourful_as_the_first(rule: Any) -> None:
    batch = scene(13, 21)
    found = fused(rule(), batch)
    assert found.shape == batch["visible"].shape
    assert found.abs().max() <= 1
    alone = fused(rule(), {"infrared": batch["infrared"]})
    assert alone.shape == batch["infrared"].shape


@pytest.mark.parametrize("rule", RULES)
def test_one_modality_alone_is_given_back(rule: Any) -> None:
    batch = scene()
    assert torch.allclose(fused(rule(), {"visible": batch["visible"]}), batch["visible"], atol=1e-5)


def test_the_mean_and_the_brightest() -> None:
    batch = scene()
    visible, infrared = batch["visible"], batch["infrared"].expand(-1, 3, -1, -1)
    assert torch.allclose(fused(Average(), batch), (visible + infrared) / 2, atol=1e-6)
    assert torch.equal(fused(Maximum(), batch), torch.maximum(visible, infrared))


@pytest.mark.parametrize("rule", RULES)
def test_luma_keeps_colour_differences(rule: Any) -> None:
    batch = {name: image * 0.2 for name, image in scene().items()}  # far from the limits
    found = fused(rule(colour="luma"), batch)
    assert torch.allclose(found - grey(found), batch["visible"] - grey(batch["visible"]), atol=1e-5)


@pytest.mark.parametrize("size", [(24, 32), (17, 33), (5, 2)])
def test_a_pyramid_sums_up_to_its_image(size: tuple[int, int]) -> None:
    image = scene(*size)["visible"][None, :, 0]
    *details, rest = pyramid(image, 4)
    for detail in reversed(details):
        grown = torch.nn.functional.interpolate(rest, size=detail.shape[-2:], mode="bilinear", align_corners=False)
        rest = detail + grown
    assert torch.allclose(rest, image, atol=1e-6)


def test_guided_filtering_agrees_with_kornia_away_from_the_border() -> None:
    guide, image = scene(48, 56)["visible"][:, :1].double(), scene(48, 56, seed=1)["infrared"].double()
    theirs = guided_blur(guide, image, kernel_size=7, eps=0.04)
    ours = guided(guide, image, 3, 0.04)
    assert torch.allclose(ours[..., 6:-6, 6:-6], theirs[..., 6:-6, 6:-6], atol=1e-9)


def test_a_window_s_mean_counts_what_is_there() -> None:
    image = scene(5, 6)["infrared"][0, 0]
    found = window_mean(image, 2)
    for i in range(5):
        for j in range(6):
            inside = image[max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
            assert found[i, j].item() == pytest.approx(float(inside.mean()), abs=1e-6)


def test_the_network_learns_to_give_images_back_and_fuses_between_its_halves() -> None:
    task = DenseFuse(width=4)
    built = system(task).train()
    (objective,) = task.objectives(built)
    smooth = {k: window_mean(v, 2) for k, v in scene(16, 16).items()}
    optimiser = torch.optim.Adam(objective.parameters.values(), 5e-3)
    values = []
    for _ in range(60):
        loss = objective.loss(smooth, Noise([0, 1])).value
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.5 * values[0]
    maps = task.encode(smooth["infrared"])
    layers = torch.stack([smooth["infrared"][:, 0]] * 2)
    assert torch.allclose(task.combine(layers), task.decode(maps)[:, 0], atol=1e-5)  # alike: either weight of l1 is ½
    task.rule = "mean"
    assert torch.allclose(task.combine(layers), task.decode(maps)[:, 0], atol=1e-5)


def test_what_cannot_be_fused_is_refused() -> None:
    with pytest.raises(DataError, match="none of the modalities"):
        fused(Average(), {"image": torch.zeros(1, 3, 8, 8)})
    with pytest.raises(DataError, match="visible 8×8, infrared 8×9"):
        fused(Average(), {"visible": torch.zeros(2, 3, 8, 8), "infrared": torch.zeros(2, 1, 8, 9)})
    with pytest.raises(DataError, match="told apart"):
        Average(modalities=("visible", "visible"))


def test_the_metric_tells_everything_at_once() -> None:
    metric = diffloom.build("metric", "fusion")
    assert metric.sources == ("visible", "infrared")
    from diffloom_fusion.metric import figures

    batch = scene(48, 48)
    found = figures(batch["visible"], [batch["visible"], batch["infrared"]], batch["visible"])
    names = {"en", "sd", "sf", "ag", "mi", "scd", "vif", "qabf", "ssim", "delta-e", "delta-e-76"}
    assert set(found) == names
    assert found["delta-e"].tolist() == found["delta-e-76"].tolist() == [0, 0]
    assert not any(values.isnan().any() for name, values in found.items() if name != "scd")
    other = figures(batch["infrared"], [batch["visible"], batch["infrared"]], batch["visible"])
    assert (other["delta-e"] > 10).all()
    assert figures(batch["infrared"], [batch["infrared"]], torch.zeros(2, 5, 48, 48))["delta-e"].isnan().all()
    with pytest.raises(DataError, match="differ in size"):
        figures(batch["visible"], [batch["infrared"][..., 1:]], batch["visible"])
