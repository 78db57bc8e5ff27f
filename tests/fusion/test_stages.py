"""Both stages by recipe, chained; other modalities by recipe alone; the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import diffloom
from diffloom import Run
from diffloom.cli import main
from diffloom_data.paired import PairedFolder
from diffloom_fusion.fuse import Fuse

SMALL = {"denoiser.channels": 8, "denoiser.multipliers": [1, 2], "denoiser.groups": 4}
SHORT = {"train.steps": 2, "train.batch": 2, "train.warmup": 0, "hooks": []}


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder as the recipes expect it, with twelve scenes of 72×80."""
    draws = np.random.default_rng(0)
    for part, channels in (("vis", 3), ("ir", 1)):
        (tmp_path / "ivf" / part).mkdir(parents=True)
        for number in range(20):
            pixels = draws.integers(0, 256, (9, 10, channels), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
            picture.save(tmp_path / "ivf" / part / f"roadscene_{number}.png")
    monkeypatch.setenv("DIFFLOOM_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def two_stages(changes: dict[str, Any], second: dict[str, Any]) -> Run:
    Run(diffloom.load("dif-fusion-stage1", overrides={**SMALL, **SHORT, **changes, "data.transforms": []})).train()
    overrides = {**SMALL, **SHORT, **changes, "eval.count": 2, **second}
    run = Run(diffloom.load("dif-fusion-stage2", overrides=overrides))
    run.train()
    return run


def test_both_stages_and_a_run_that_is_opened_again(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = two_stages({"data.patch": 64, "data.stride": 64}, {})
    task = run.system.task
    assert isinstance(task, Fuse)
    assert task.kept.misses <= len(run.dataset)
    first = Run.of(Path("runs/dif-fusion-stage1"), hooks=[])
    first.load()
    learned = first.system.denoiser.state_dict()
    assert all(torch.equal(t, learned[name]) for name, t in run.system.denoiser.state_dict().items())
    figures = run.evaluate()["sampler"]
    assert figures["fusion/qabf"] > 0
    assert json.loads((run.directory / "evaluation.json").read_text())["figures"]["sampler"].keys() == figures.keys()

    again = Run.of(run.directory, hooks=[])
    again.load()
    batch = {key: value[None] for key, value in run.dataset.get(0).items() if key in task.modalities}
    assert torch.equal(again.system.predict(batch, seeds=[0])["image"], run.system.predict(batch, seeds=[0])["image"])
    images = run.sample(2)["image"]
    assert images.shape == (2, 3, 72, 80)  # held-out scenes, whole

    files = ["ivf/ir/roadscene_1.png", "ivf/vis/roadscene_1.png"]
    assert main(["fuse", *files, "-o", "fused.png"]) == 0
    assert "fused by dif-fusion-stage2" in capsys.readouterr().out
    assert np.asarray(Image.open("fused.png")).shape == (72, 80, 3)
    assert main(["fuse", *files, "-o", "again.png", "--by", "runs/dif-fusion-stage2"]) == 0
    assert Path("fused.png").read_bytes() == Path("again.png").read_bytes()


def test_optical_and_radar_bands_by_recipe_alone(pairs: Path) -> None:
    draws = np.random.default_rng(1)
    for name, count in (("optical", 4), ("sar", 2)):
        (pairs / "ivf" / name).mkdir()
        for number in range(20):
            values = draws.normal(size=(count, 16, 16)) * (1000 if name == "optical" else 5)
            np.save(pairs / "ivf" / name / f"roadscene_{number}.npy", values.astype(np.float32))
    bands: dict[str, dict[str, object]] = {
        "optical": {"folder": "optical", "channels": 4, "low": -3000.0, "high": 3000.0},
        "sar": {"folder": "sar", "channels": 2, "low": -15.0, "high": 15.0},
    }
    recipe = {"data": {"type": "paired-folder", "path": "$DIFFLOOM_DATA/ivf", "modalities": bands, "in_memory": True}}
    for stage, changes in (("1", {}), ("2", {"task.drop": {"sar": 0.3, "optical": 0.3}, "task.output": "mix"})):
        source = diffloom.load(f"dif-fusion-stage{stage}", overrides={**SMALL, **SHORT, **changes}).resolved()
        metrics = [{"type": "fusion", "sources": ["optical", "sar"], "colour": "optical"}] if stage == "2" else []
        changed = {**source, **recipe, "eval": {"count": 2, "batch": 1, "metrics": metrics}}
        run = Run(diffloom.load(overrides=changed))
        run.train()
    assert isinstance(run.dataset, PairedFolder)
    batch = {key: value[None] for key, value in run.dataset.get(0).items() if key in bands}
    assert run.system.predict(batch, seeds=[0])["image"].shape == (1, 4, 16, 16)
    assert run.system.predict({"sar": batch["sar"]}, seeds=[0])["image"].shape == (1, 4, 16, 16)
    assert np.isnan(run.evaluate()["sampler"]["fusion/delta-e"])


def test_baselines_are_recipes_that_train_nothing(pairs: Path) -> None:
    for name in ("average", "maximum", "laplacian", "guided"):
        run = Run(diffloom.load(f"fusion-{name}", overrides={"hooks": [], "eval.count": 1}))
        run.train()
        run.load()
        assert run.sample(1)["image"].shape == (1, 3, 72, 80)
        assert run.evaluate()["sampler"]["fusion/mi"] > 0


def test_the_command_fuses_by_a_rule_where_nothing_is_trained(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["ivf/ir/roadscene_0.png", "ivf/vis/roadscene_0.png"]
    assert main(["fuse", *files, "-o", "plain.png"]) == 0
    said = capsys.readouterr()
    assert "there is no run of dif-fusion-stage2" in said.err
    assert "fused by laplacian" in said.out
    assert main(["fuse", *files, "-o", "plain.npy", "--by", "average"]) == 0
    assert np.load("plain.npy").shape == (3, 72, 80)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.png", "ivf/vis/roadscene_0.png", "-o", "x.png"], "cannot be read"),
        (["ivf/ir/roadscene_0.png", "ivf/vis/roadscene_0.png", "-o", "x.docx"], "no format"),
        (["ivf/ir/roadscene_0.png", "ivf/vis/roadscene_0.png", "-o", "no/x.png"], "does not exist"),
        (["ivf/ir/roadscene_0.png", "ivf/vis/roadscene_0.png", "-o", "x.png", "--by", "no-run"], "no-run"),
        (["small.png", "ivf/vis/roadscene_0.png", "-o", "x.png", "--by", "average"], "differ in size"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    arguments: list[str], said: str, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (8, 8)).save("small.png")
    assert main(["fuse", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(Path().glob("x.*"))
