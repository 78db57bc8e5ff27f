"""StableSR end to end: frozen base, published start, any size, and colours set right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffloom
from diffloom import Sampler, State, System
from diffloom.errors import IncompatibleParts
from diffloom_stablesr.consistency import consistency
from diffloom_stablesr.task import mirrored

RECIPE = """\
diffloom: 1
name: enlarge
data:
  type: digits
  size: 16
  transforms: [{type: degrade, scale: 4, pure: 1.0}]
schedule:  {type: scaled-linear, steps: 1000}
denoiser:  {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, freeze: true}
conditioners:
  small:
    {type: time-aware-sft, scale: 4, channels: 8, multipliers: [1, 1], blocks: 1, heads: 1, width: 8, hidden: 8}
sampler:   {type: ddim, steps: 3}
task:      {type: stablesr, multiple: 2}
train:     {steps: 2, batch: 4, checkpoint_every: 2}
hooks:     []
"""


def recipe(folder: Path, text: str = RECIPE) -> diffloom.Recipe:
    file = folder / "enlarge.yaml"
    file.write_text(text)
    return diffloom.load(file)


@pytest.fixture
def system(tmp_path: Path) -> System:
    return recipe(tmp_path).build()


def small(height: int = 4, width: int = 4) -> dict[str, torch.Tensor]:
    return {"low_res": torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0)) - 0.5}


def test_training_moves_the_conditioner_and_nothing_else(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    assert made.check().trainable > 0
    run = diffloom.Run(made, tmp_path / "run")
    with torch.no_grad():
        for parameter in run.system.denoiser.parameters():  # nothing stays 0, as in a trained network
            parameter.add_(0.05 * torch.randn_like(parameter))
    before = {name: p.clone() for name, p in run.system.named_parameters()}
    run.train()
    moved = {name for name, p in run.system.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.startswith("conditioning.small.") for name in moved)


def test_a_walk_begins_at_the_small_images_latent_under_noise(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    count, begun, start = 300, [], Sampler.start

    def watched(sampler: Sampler, *given: Any, **more: Any) -> State:
        begun.append(start(sampler, *given, **more))
        return begun[-1]

    monkeypatch.setattr(Sampler, "start", watched)
    batch = {"low_res": small()["low_res"][:1].expand(count, -1, -1, -1)}
    system.predict(batch, seeds=range(count))
    large = torch.nn.functional.interpolate(batch["low_res"][:1], (16, 16), mode="bicubic").clamp(-1, 1)
    alpha = float(system.schedule.alpha(999))
    assert alpha == pytest.approx(0.06826, abs=1e-5)
    gap = begun[0].x.mean(0) - alpha * large[0]
    assert float(gap.square().mean().sqrt() * count**0.5) == pytest.approx(1, abs=0.15)  # noise of unit variance
    assert float((begun[0].x.mean(0) * large[0]).sum() / large.square().sum()) == pytest.approx(alpha, abs=0.02)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (3, 9), (1, 6)])
def test_images_of_any_size_are_enlarged(system: System, height: int, width: int) -> None:
    answer = system.predict(small(height, width), seeds=(1, 2))["image"]
    assert answer.shape == (2, 1, 4 * height, 4 * width)
    assert answer.abs().max() <= 1


def test_colours_are_those_of_the_small_image(tmp_path: Path) -> None:
    batch = small()
    batch["low_res"] = batch["low_res"] * 0.4 + 0.3
    means = {}
    for how in ("adain", "none"):
        system = recipe(tmp_path, RECIPE.replace("multiple: 2", f"multiple: 2, colour: {how}")).build()
        means[how] = system.predict(batch, seeds=(1, 2))["image"].mean((1, 2, 3))
    wanted = batch["low_res"].mean((1, 2, 3))
    assert (means["adain"] - wanted).abs().max() < 0.05
    assert (means["none"] - wanted).abs().max() > 0.1


def test_a_large_image_in_windows_takes_no_more_than_one(tmp_path: Path) -> None:
    system = recipe(tmp_path, RECIPE + "sample: {window: 8}\n").build()
    whole = recipe(tmp_path, RECIPE).build()
    with torch.no_grad():
        for part in (system, whole):  # equal weights, and modulations that do something
            for index, parameter in enumerate(part.parameters()):
                generator = torch.Generator().manual_seed(index)
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    batch = small(6, 8)
    tiled, single = (part.predict(batch, seeds=(1, 2))["image"] for part in (system, whole))
    assert tiled.shape == single.shape == (2, 1, 24, 32)
    assert (tiled - single).abs().mean() < 0.3
    assert torch.equal(tiled, system.predict(batch, seeds=(1, 2))["image"])


def test_the_task_needs_its_conditioner(tmp_path: Path) -> None:
    text = RECIPE.replace("small:\n", "other:\n").replace("time-aware-sft", "image").split("conditioners:")[0]
    made = recipe(tmp_path, text + "sampler: {type: ddim, steps: 3}\ntask: {type: stablesr}\n")
    with pytest.raises(IncompatibleParts, match="one conditioner of type time-aware-sft"):
        made.build().predict(small(), seeds=(1, 2))


@settings(deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), multiple=st.integers(1, 24))
def test_mirroring_reaches_the_multiple_and_keeps_the_image(height: int, width: int, multiple: int) -> None:
    x = torch.rand(1, 2, height, width)
    out = mirrored(x, multiple)
    assert all(side % multiple == 0 for side in out.shape[2:])
    assert torch.equal(out[..., :height, :width], x)


def test_an_exact_answer_is_consistent() -> None:
    large = torch.rand(2, 3, 32, 32) - 0.5
    given = torch.nn.functional.interpolate(large, (8, 8), mode="bicubic", antialias=True)
    assert consistency(large, given).tolist() == [100, 100]
    assert consistency(large + 0.2, given)[0] == pytest.approx(20.0, abs=1e-3)
