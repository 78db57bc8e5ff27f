"""Recipes with controls are checked, trained and sampled; weights come from others' folders and files, and go there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import diffloom
from diffloom.checkpoint import save_tensors
from diffloom.condition import Condition
from diffloom.errors import DiffloomError
from diffloom.recipe.importing import import_weights
from diffloom_diffusers.exporting import export
from tests.controlnet.parts import normal, theirs
from tests.unet.parity import scramble

RECIPE = """\
diffloom: 1
name: controlled
data: {type: digits, size: 16, transforms: [{type: sobel}]}
schedule: {type: cosine, steps: 40}
denoiser:
  {type: unet, channels: 16, multipliers: [1, 2], blocks: 1, attention: [16, 8], groups: 8, context: 12, vector: 0,
   embedding: adm, padding: symmetric, freeze: true}
conditioners:
  digit: {type: class-label, port: context, classes: 10, drop: 0.1}
  control: {type: controlnet, channels: 1}
  sketch: {type: t2i-adapter, channels: 1, scale: 0.5, end: 0.5}
sampler: {type: ddim, steps: 4}
task: {type: generate, timesteps: cubic}
train: {steps: 2, batch: 4, checkpoint_every: 10}
sample: {count: 2}
hooks: []
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "controlled.yaml"
    file.write_text(RECIPE)
    return file


def test_a_recipe_with_controls_is_checked_trained_and_sampled(recipe: Path, tmp_path: Path) -> None:
    loaded = diffloom.load(recipe)
    report = loaded.check()
    assert set(report.parameters) == {"denoiser", "conditioners.digit", "conditioners.control", "conditioners.sketch"}
    assert report.trainable == sum(count for role, count in report.parameters.items() if role != "denoiser")
    save_tensors(scramble(loaded.build().denoiser).state_dict(), tmp_path / "base.safetensors")
    based = diffloom.load(recipe, overrides={"denoiser.weights": str(tmp_path / "base.safetensors")})
    run = diffloom.Run(based, tmp_path / "run")
    run.train()
    assert run.system.sample(2).shape == (2, 1, 16, 16)
    weights = run.system.conditioners["control"].state_dict()
    assert all(bool(weights[f"zeros.{index}.weight"].any()) for index in range(5))


def test_weights_come_from_diffusers_folders_and_go_there(recipe: Path, tmp_path: Path) -> None:
    built = diffloom.load(recipe).build()
    for part in (built.denoiser, built.conditioners["control"], built.conditioners["sketch"]):
        scramble(part)
    done = export(built, tmp_path / "out")
    assert {"unet", "controlnet", "t2iadapter"} <= set(done.classes)
    assert (done.classes["controlnet"], done.classes["t2iadapter"]) == ("ControlNetModel", "T2IAdapter")
    assert not [note for note in done.notes if "control" in note or "sketch" in note]
    import diffusers

    model: Any = diffusers.ControlNetModel.from_pretrained(tmp_path / "out" / "controlnet").eval()
    x, t, context, hint = normal(2, 1, 16, 16), torch.tensor([3, 30]), normal(2, 1, 12), torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        downs, mid = model(x, t, context, hint, return_dict=False)
        part = built.conditioners["control"]
        said = part(part.encode({"hint": hint}), x, t, Condition(context=context))
    for edit, other in zip(said.affine.values(), (*downs, mid), strict=True):
        torch.testing.assert_close(edit.shift, other, rtol=1e-4, atol=1e-4)

    sources = [tmp_path / "out" / name for name in ("controlnet", "t2iadapter")]
    result = import_weights(sources, diffloom.load(recipe), tmp_path / "in")
    assert {each.role: each.layout for each in result.imported} == {
        "conditioners.control": "diffusers",
        "conditioners.sketch": "diffusers",
    }
    assert not [doubt for each in result.imported for doubt in each.doubts]
    again = diffloom.load(recipe, overrides={"conditioners.control.weights": str(tmp_path / "out" / "controlnet")})
    state = again.build().conditioners["control"].state_dict()
    assert all(torch.equal(value, part.state_dict()[key]) for key, value in state.items())


def test_weights_come_from_original_files_and_pickles(recipe: Path, tmp_path: Path) -> None:
    part = scramble(diffloom.load(recipe).build().conditioners["control"])
    layout = next(layout for layout in part.layouts() if layout.name == "ldm")
    tensors = layout.write(part.state_dict())
    others = {"model.diffusion_model.out.2.weight": torch.ones(3)}  # such files hold the frozen network too
    save_file({**tensors, **others}, tmp_path / "control.safetensors")
    torch.save({"state_dict": {**tensors, **others}}, tmp_path / "control.pth")
    for name in ("control.safetensors", "control.pth"):
        result = import_weights([tmp_path / name], diffloom.load(recipe), tmp_path / f"in-{name}")
        (found,) = result.imported
        assert (found.role, found.layout) == ("conditioners.control", "ldm")
    loaded = diffloom.load(recipe, overrides={"conditioners.control.weights": str(tmp_path / "control.safetensors")})
    state = loaded.build().conditioners["control"].state_dict()
    assert all(torch.equal(value, part.state_dict()[key]) for key, value in state.items())


def test_several_of_a_kind_have_folders_of_their_names(recipe: Path, tmp_path: Path) -> None:
    overrides = {"conditioners.other": {"type": "controlnet", "channels": 1}}
    done = export(diffloom.load(recipe, overrides=overrides).build(), tmp_path / "out")
    assert {"controlnet-control", "controlnet-other", "t2iadapter"} <= set(done.classes)
    config = json.loads((tmp_path / "out" / "controlnet-other" / "config.json").read_text())
    assert (config["_class_name"], config["conditioning_channels"]) == ("ControlNetModel", 1)
    assert config["conditioning_embedding_out_channels"] == [16]


def test_a_control_before_what_it_shall_hear_is_refused_by_the_check(recipe: Path) -> None:
    first = "  digit: {type: class-label, port: context, classes: 10, drop: 0.1}\n"
    text = RECIPE.replace(first, "").replace("  sketch:", first + "  sketch:")
    recipe.write_text(text)
    with pytest.raises(DiffloomError, match="list it after the conditioners"):
        diffloom.load(recipe).check()


def test_equal_weights_are_loaded_by_diffusers_own_classes(recipe: Path) -> None:
    part: Any = scramble(diffloom.load(recipe).build().conditioners["sketch"])
    hint = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        for edit, other in zip(part.encode({"hint": hint}).affine.values(), theirs(part)(hint), strict=True):
            torch.testing.assert_close(edit.shift, 0.5 * other, rtol=1e-4, atol=1e-4)
