"""Every fault of a recipe is told on a line of its own, with its place, before anything is trained."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import RECIPE, Call

CONCAT = '''
"""A conditioner that shows the label as channels."""
import torch
from diffloom import Condition, Conditioner, Ports

class LabelPlanes(Conditioner):
    """Two planes of the label."""
    needs = ("label",)
    gives = Ports(concat=2)
    def __init__(self) -> None:
        super().__init__()
    def encode(self, batch):
        return batch["label"].float()[:, None]
    def null(self, code):
        return torch.zeros_like(code)
    def forward(self, code, x_t, t, given):
        return Condition(concat=code[:, :, None, None].expand(-1, 2, *x_t.shape[2:]))
'''

FAULTS = {
    "a misspelt key": ("steps: 20}", "step: 20}", "4:27: schedule.step: unknown key", "did you mean 'steps'?"),
    "a misspelt role": ("sampler: ", "sampeler:", "8:1: sampeler: unknown key", "did you mean 'sampler'?"),
    "a wrong type": ("steps: 4,", "steps: four,", "10:13: train.steps: wrong type", "got 'four'"),
    "a negative width": ("channels: 8", "channels: -8", "5:25: denoiser.channels: out of range", "got -8"),
    "a missing component": (
        "type: ddim",
        "type: ddmi",
        "8:13: sampler.type: there is no sampler named 'ddmi'",
        "'ddim'",
    ),
    "an unreadable folder": (
        "type: digits, size: 8",
        "type: folder, path: gone, labels: folders, size: 8",
        "3:1: data: ",
        "gone",
    ),
    "a port that no one fills": (
        "prediction: v}",
        "prediction: v, concat: 3}",
        "5:1: denoiser: the denoiser takes 3 channels beside x_t, and no conditioner fills that port",
        "expected 3 channels",
    ),
    "more steps than there are": ("steps: 3}", "steps: 30}", "8:1: sampler: 30 sampling steps do not fit", "of 20"),
}


def changed(*names: str) -> str:
    text = RECIPE
    for name in names:
        old, new, *_ = FAULTS[name]
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_with_its_place(call: Call, recipe: Path, name: str) -> None:
    recipe.write_text(changed(name))
    said = call("check", recipe)
    assert said.code == 2
    assert said.out == ""
    *_, where, what = FAULTS[name]
    assert len(said.lines) == 1, said.err
    assert said.err.startswith(f"{recipe}:{where}")
    assert what in said.err


def test_all_faults_are_told_at_once(call: Call, recipe: Path) -> None:
    names = [name for name in FAULTS if name not in ("a misspelt role", "more steps than there are")]
    recipe.write_text(changed(*names))
    said = call("check", recipe)
    assert said.code == 2
    assert len(said.lines) == len(names), said.err
    for name in names:
        where, what = FAULTS[name][2:]
        assert any(line.startswith(f"{recipe}:{where}") and what in line for line in said.lines), name


def test_what_is_left_out_brings_no_further_problems(call: Call, recipe: Path) -> None:
    text = RECIPE.replace("type: unet", "type: unnet").replace("type: digits", "type: digits, mode: x")
    recipe.write_text(text.replace("name: tiny\n", ""))
    said = call("check", recipe)
    assert len(said.lines) == 3, said.err
    assert [part in said.err for part in ("denoiser.type", "data.mode", "name: missing")] == [True] * 3


def test_channels_that_do_not_match_are_named(call: Call, recipe: Path) -> None:
    (recipe.parent / "planes.py").write_text(CONCAT)
    text = RECIPE.replace("prediction: v}", "prediction: v, concat: 3}")
    recipe.write_text(text.replace("sampler: ", "  planes:  {type: label-planes}\nsampler: "))
    said = call("check", recipe, "--plugin", "planes.py")
    assert said.code == 2
    assert len(said.lines) == 1, said.err
    assert said.err.startswith(f"{recipe}:8:3: conditioners.planes: the channels beside x_t do not match")
    assert "expected 3 channels on the concat port, got 2" in said.err
    assert call("check", recipe, "--plugin", "planes.py", "--set", "denoiser.concat=2").code == 0


def test_nothing_is_trained_or_written_where_a_part_does_not_fit(call: Call, recipe: Path) -> None:
    recipe.write_text(changed("a port that no one fills"))
    said = call("train", recipe)
    assert said.code == 2
    assert said.err.startswith(f"{recipe}:5:1: denoiser:")
    assert not (recipe.parent / "runs").exists()


def test_a_setting_is_named_by_its_option(call: Call, recipe: Path) -> None:
    said = call("check", recipe, "--set", "train.steps=no", "--set", "denoiser.channels=0")
    assert said.code == 2
    assert sorted(line.split(": ")[0] for line in said.lines) == ["--set denoiser.channels", "--set train.steps"]


def test_a_sound_recipe_is_described(call: Call, recipe: Path) -> None:
    said = call("check", recipe)
    assert (said.code, said.err) == (0, "")
    assert "all parts fit together" in said.out
    assert "3 evaluations" in said.out


def test_json_has_the_figures_and_the_problems(call: Call, recipe: Path) -> None:
    bad = recipe.with_name("bad.yaml")
    bad.write_text(changed("a wrong type", "a negative width"))
    said = call("check", recipe, bad, "--json")
    assert said.code == 2
    good, wrong = json.loads(said.out)
    assert (good["ok"], good["samples"], good["evaluations"]) == (True, 1438, 3)
    assert good["parameters"]["conditioners.digit"] == 11 * 32
    assert good["trainable"] == sum(good["parameters"].values())
    assert wrong["ok"] is False
    assert [line.split(": ")[1] for line in wrong["problems"]] == ["train.steps", "denoiser.channels"]


def test_an_overlay_is_laid_over(call: Call, recipe: Path) -> None:
    overlay = recipe.with_name("more.yaml")
    overlay.write_text("sampler: {steps: 7}\n")
    said = call("check", recipe, "--overlay", overlay, "--json")
    assert json.loads(said.out)[0]["evaluations"] == 7
