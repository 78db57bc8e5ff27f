"""Prompts: captions without images, for systems that only sample."""

from pathlib import Path

import diffloom
from diffloom.data import collate
from diffloom_data.prompts import Prompts

RECIPE = """\
diffloom: 1
name: asked
data:      {type: prompts, captions: [one, two], size: [8, 16], channels: 2}
schedule:  {type: cosine, steps: 20}
denoiser:  {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}
sampler:   {type: ddim, steps: 2}
task:      {type: generate}
train:     {steps: 0}
hooks:     []
"""


def test_captions_are_taken_as_they_stand() -> None:
    prompts = Prompts(captions=["a field", "a port"], size=(32, 64), channels=4)
    assert collate([prompts.get(i) for i in range(2)]) == {"caption": ["a field", "a port"]}
    assert prompts.space.shape == (4, 32, 64)
    assert Prompts(size=8).space.shape == (3, 8, 8)


def test_a_recipe_without_training_is_checked_and_sampled(tmp_path: Path) -> None:
    file = tmp_path / "asked.yaml"
    file.write_text(RECIPE)
    recipe = diffloom.load(file)
    report = recipe.check()
    assert report.trainable == 0
    assert report.samples == 2
    run = diffloom.Run(recipe, tmp_path / "run")
    run.train()
    outputs = run.sample(3)
    assert tuple(outputs["image"].shape) == (3, 2, 8, 16)
    assert run.step == 0
