"""`run`, `train`, `sample` and `eval` on a small recipe."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call

METRIC = '''
from diffloom import Metric

class Brightness(Metric):
    """Mean of the samples' values."""
    name = "brightness"
    def __init__(self) -> None:
        pass
    def measure(self, evaluation):
        values = [prediction["image"].mean().item() for _, prediction in evaluation.pairs()]
        return {"brightness": sum(values) / len(values), "batches": float(len(values))}
'''
LOCK = "recipe.lock.yaml"


def test_train_prints_the_runs_folder_and_nothing_else(call: Call, recipe: Path) -> None:
    said = call("train", recipe, "--set", "train.steps=2", "--quiet")
    assert (said.code, said.out) == (0, "runs/tiny\n")
    assert sorted(path.name for path in Path("runs/tiny/checkpoints").iterdir()) == ["step-00000002"]


def test_train_goes_on_where_a_run_stopped(call: Call, recipe: Path) -> None:
    assert call("train", recipe, "--out", "here", "--hook", "progress").code == 0
    said = call("train", recipe, "--out", "here", "--hook", "progress")
    assert (said.code, said.out) == (0, "here\n")
    assert "train" not in said.err


def test_another_recipe_in_the_same_folder_is_refused(call: Call, trained: Path, recipe: Path) -> None:
    before = (trained / LOCK).read_bytes()
    said = call("train", recipe, "--set", "train.lr=0.1")
    assert said.code == 2
    assert "train.lr" in said.err
    assert "--out" in said.err
    assert (trained / LOCK).read_bytes() == before


def test_overlays_and_settings_are_laid_over_in_order(call: Call, recipe: Path) -> None:
    recipe.with_name("a.yaml").write_text("train: {steps: 1, batch: 2}\n")
    recipe.with_name("b.yaml").write_text("train: {batch: 3}\nname: over\n")
    assert call("train", recipe, "a.yaml", "b.yaml", "--set", "seed=5", "--quiet").out == "runs/over\n"
    lock = Path("runs/over", LOCK).read_text()
    assert "batch: 3" in lock
    assert "steps: 1\n" in lock
    assert "seed: 5" in lock


def test_run_trains_samples_and_evaluates(call: Call, recipe: Path) -> None:
    Path("metric.py").write_text(METRIC)
    settings = ["train.steps=2", "eval={count: 6, batch: 3, metrics: [{type: brightness}]}"]
    said = call("run", recipe, "--plugin", "metric.py", "--set", settings[0], "--set", settings[1], "--hook", "samples")
    assert said.code == 0, said.err
    folder, *table = said.out.splitlines()
    assert folder == "runs/tiny"
    assert table[0].split() == ["brightness", "batches"]
    assert table[1].split()[0] == "sampler"
    assert list(Path("runs/tiny/samples").glob("*.png"))


def test_hooks_are_added_left_out_and_checked(call: Call, recipe: Path) -> None:
    said = call("train", recipe, "--set", "train.steps=1", "--no-hook", "metrics-log")
    assert said.code == 0
    assert not Path("runs/tiny/metrics.jsonl").exists()
    said = call("train", recipe, "--out", "b", "--no-hook", "metric-log")
    assert said.code == 2
    assert "did you mean 'metrics-log'?" in said.err
    assert call("train", recipe, "--out", "b", "--hook", "nothing").code == 2


def test_progress_goes_to_stderr_as_plain_lines(call: Call, recipe: Path) -> None:
    said = call("train", recipe, "--hook", "progress", "--set", "train.steps=2")
    assert said.out == "runs/tiny\n"
    assert "train 2/2 (100 %)" in said.err
    assert "\x1b" not in said.err
    quiet = call("train", recipe, "--hook", "progress", "--out", "quiet", "--quiet")
    assert "2/2" not in quiet.err


def test_an_interrupted_training_says_how_to_go_on(call: Call, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffloom.engine.run import Run

    def stop(run: Run) -> None:
        run.step = 3
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "train", stop)
    said = call("train", recipe)
    assert said.code == 130
    assert "stopped at step 3 of 4: nothing is lost" in said.err
    assert "same command" in said.err


def test_sampling_writes_what_was_asked_for(call: Call, trained: Path) -> None:
    from PIL import Image

    said = call("sample", "tiny", "--seeds", "5,7-8", "--give", "label=[3,1]", "--out", "pictures")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == "pictures/samples.json"
    records = json.loads(Path("pictures/samples.json").read_text())["samples"]
    assert [(record["seed"], record["given"]["label"]) for record in records] == [(5, 3), (7, 1), (8, 3)]
    assert {Image.open(Path("pictures", record["file"])).size for record in records} == {(8, 8)}
    alone = call("sample", trained, "--seeds", "7", "--give", "label=1", "--out", "alone")
    assert alone.code == 0
    again = Path("alone/00000-seed-7.png").read_bytes()
    assert again == Path("pictures/00001-seed-7.png").read_bytes()


def test_a_run_is_found_by_its_recipe(call: Call, trained: Path, recipe: Path) -> None:
    assert call("sample", recipe, "--count", "1").code == 0
    assert call("sample", trained / LOCK, "--count", "1").err == ""
    recipe.write_text(recipe.read_text().replace("steps: 3", "steps: 2"))
    assert "sampler.steps: 3 → 2" in call("sample", recipe, "--count", "1").err
    said = call("sample", "tyni")
    assert said.code == 2
    assert "tiny" in said.err


def test_sampling_settings_leave_the_run_as_it_is(call: Call, trained: Path) -> None:
    before = (trained / LOCK).read_bytes()
    first = call("sample", "tiny", "--seeds", "0", "--out", "a")
    other = call("sample", "tiny", "--seeds", "0", "--out", "b", "--set", "sampler.steps=9")
    assert (first.code, other.code) == (0, 0)
    assert Path("a/00000-seed-0.png").read_bytes() != Path("b/00000-seed-0.png").read_bytes()
    assert (trained / LOCK).read_bytes() == before


def test_guidance_and_precision_can_be_changed_for_sampling(
    call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from diffloom.engine.run import Run

    seen = []
    monkeypatch.setattr(Run, "sample", lambda run, *_, **__: seen.append((run.system.guidance(), run.system.plan)))
    before = (trained / LOCK).read_bytes()
    assert call("sample", "tiny").code == 0
    settings = ["conditioners.digit.guidance=5.5", "precision=bfloat16", "sample.batch=3"]
    assert call("sample", "tiny", *(part for text in settings for part in ("--set", text))).code == 0
    (first, _), (second, plan) = seen
    assert (first, second) == ({"digit": 2.0}, {"digit": 5.5})
    assert (plan.precision, plan.sample_batch, plan.conditioning["digit"].drop) == (torch.bfloat16, 3, 0.1)
    assert (trained / LOCK).read_bytes() == before


def test_a_recipe_that_trains_nothing_can_be_sampled_and_judged(call: Call, trained: Path, recipe: Path) -> None:
    weights = ("denoiser.weights=run:tiny", "conditioners.digit.weights=run:tiny")
    settings = [part for text in (*weights, "name=again", "train.steps=0") for part in ("--set", text)]
    assert call("train", recipe, *settings).code == 0
    assert call("sample", "again", "--seeds", "4", "--out", "a").code == 0
    assert call("sample", "tiny", "--seeds", "4", "--out", "b").code == 0
    assert Path("a/00000-seed-4.png").read_bytes() == Path("b/00000-seed-4.png").read_bytes()


def test_sampling_cannot_change_what_was_trained(call: Call, trained: Path) -> None:
    before = (trained / LOCK).read_bytes()
    said = call("sample", "tiny", "--set", "denoiser.channels=16")
    assert said.code == 2
    assert "denoiser.channels: 8 → 16" in said.err
    assert (trained / LOCK).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--give", "lable=3"], "keys label"),
        (["--give", "label"], "asks for nothing"),
        (["--give", "label=10"], "no such class"),
        (["--give", "label=cat"], "no such class"),
        (["--seeds", "a-b"], "no list of seeds"),
        (["--seeds", "9-3"], "no list of seeds"),
        (["--seeds", "1,2", "--count", "3"], "one seed for each"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(call: Call, trained: Path, arguments: list[str], said: str) -> None:
    found = call("sample", "tiny", *arguments)
    assert found.code == 2
    assert len(found.lines) == 1, found.err
    assert said in found.err


def test_sampling_an_untrained_recipe_says_what_to_do(call: Call, recipe: Path) -> None:
    said = call("sample", recipe)
    assert said.code == 2
    assert "diffloom train" in said.err


def test_eval_prints_figures_and_keeps_the_lock(call: Call, trained: Path) -> None:
    Path("metric.py").write_text(METRIC)
    before = (trained / LOCK).read_bytes()
    metric = "eval={count: 6, batch: 3, metrics: [{type: brightness}], samplers: {fast: {type: ddim, steps: 2}}}"
    said = call("eval", "tiny", "--plugin", "metric.py", "--set", metric, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["step"] == 4
    assert set(found["figures"]) == {"sampler", "fast"}
    assert found["figures"]["fast"]["batches"] == 2
    assert found["figures"]["fast"]["brightness"] != found["figures"]["sampler"]["brightness"]
    assert (trained / LOCK).read_bytes() == before
    table = call("eval", "tiny", "--plugin", "metric.py", "--set", metric).out.splitlines()
    assert [line.split()[0] for line in table] == ["brightness", "sampler", "fast"]


def test_eval_without_metrics_says_what_to_give(call: Call, trained: Path) -> None:
    said = call("eval", "tiny")
    assert said.code == 2
    assert "eval.metrics" in said.err
