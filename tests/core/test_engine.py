"""The engine: a run is a function of its recipe, whenever it is killed and wherever it goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import diffloom
from diffloom import Loss, Noise, Objective, Run, System, Task
from diffloom.conditioner import Batch
from diffloom.data import Dataset
from diffloom.engine.average import Average
from diffloom.engine.loader import Stream, order
from diffloom.errors import CheckpointError, DiffloomError, IncompatibleParts, RecipeError


class Log:
    def __init__(self) -> None:
        self.records: list[dict[str, float]] = []
        self.messages: list[str] = []

    @diffloom.hook
    def diffloom_step(self, step: int, record: dict[str, float]) -> None:
        self.records.append({"step": step, **record})

    @diffloom.hook
    def diffloom_message(self, text: str) -> None:
        self.messages.append(text)


def weights_of(directory: Path) -> dict[str, bytes]:
    newest = sorted((directory / "checkpoints").glob("step-*"))[-1]
    return {file.name: file.read_bytes() for file in newest.iterdir()}


def trained(recipe_file: Path, directory: Path, **overrides: object) -> tuple[Run, Log]:
    log = Log()
    run = Run(diffloom.load(recipe_file, overrides=overrides), directory, plugins={"log": log})
    run.train()
    return run, log


def test_training_lowers_the_loss_and_samples_follow_their_seeds(recipe_file: Path, tmp_path: Path) -> None:
    run, log = trained(recipe_file, tmp_path / "r", **{"train.steps": 60})
    losses = [record["loss"] for record in log.records]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    labels = {"label": torch.arange(4)}
    together = run.system.sample(seeds=[5, 6, 7, 8], batch=labels)
    alone = run.system.sample(seeds=[7], batch={"label": torch.tensor([2])})
    assert torch.allclose(together[2], alone[0], atol=1e-5)


class Stop(Exception):  # noqa: N818
    """Ends a run in the middle, as a crash does."""


@pytest.mark.parametrize("at", [3, 4, 9])
def test_a_run_that_broke_off_ends_with_the_bits_of_an_unbroken_one(recipe_file: Path, tmp_path: Path, at: int) -> None:
    trained(recipe_file, tmp_path / "whole")
    run = Run(diffloom.load(recipe_file), tmp_path / "broken")
    original = run._after_step

    def break_off(trainer: object, record: object) -> None:
        original(trainer, record)  # type: ignore[arg-type]
        if run.step == at:
            raise Stop

    run._after_step = break_off  # type: ignore[method-assign]
    with pytest.raises(Stop):
        run.train()
    trained(recipe_file, tmp_path / "broken")
    assert weights_of(tmp_path / "broken") == weights_of(tmp_path / "whole")


def test_a_damaged_checkpoint_is_passed_over_with_a_message(recipe_file: Path, tmp_path: Path) -> None:
    trained(recipe_file, tmp_path / "whole")
    trained(recipe_file, tmp_path / "hurt")
    newest = sorted((tmp_path / "hurt" / "checkpoints").glob("step-*"))[-1]
    (newest / "weights.safetensors").write_bytes(b"\0" * 100)
    _, log = trained(recipe_file, tmp_path / "hurt")
    assert any("step-00000012" in message and "hash" in message for message in log.messages)
    assert weights_of(tmp_path / "hurt") == weights_of(tmp_path / "whole")


def test_accumulation_gives_the_gradient_of_the_whole_batch(recipe_file: Path, tmp_path: Path) -> None:
    whole, _ = trained(recipe_file, tmp_path / "whole", **{"train.steps": 2})
    parts, _ = trained(recipe_file, tmp_path / "parts", **{"train.steps": 2, "train.accumulate": 4})
    for a, b in zip(whole.system.parameters(), parts.system.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_another_recipe_does_not_touch_the_folder(recipe_file: Path, tmp_path: Path) -> None:
    trained(recipe_file, tmp_path / "r")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "r").rglob("*")}
    with pytest.raises(RecipeError, match=r"train\.lr"):
        Run(diffloom.load(recipe_file, overrides={"train.lr": 1e-3}), tmp_path / "r")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(RecipeError, match="holds other things"):
        Run(diffloom.load(recipe_file), tmp_path / "mine")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "r").rglob("*")} == before


def test_weights_of_a_run_chain_into_the_next(recipe_file: Path, tmp_path: Path) -> None:
    first, _ = trained(recipe_file, tmp_path / "runs" / "small")
    change = {"denoiser.weights": "run:small", "denoiser.freeze": True, "name": "second", "train.steps": 3}
    second, log = trained(recipe_file, tmp_path / "runs" / "second", **change)
    for a, b in zip(first.system.denoiser.parameters(), second.system.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not any("moved" in message for message in log.messages)
    assert "denoiser" in (tmp_path / "runs" / "second" / "recipe.lock.yaml").read_text().split("weights:")[-1]
    with pytest.raises(CheckpointError, match="another shape"):
        trained(recipe_file, tmp_path / "runs" / "third", **{"denoiser.weights": "run:small", "denoiser.width": 4})
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        trained(recipe_file, tmp_path / "runs" / "fourth", **{"denoiser.weights": "run:nobody"})


def test_a_reloaded_run_samples_the_same(recipe_file: Path, tmp_path: Path) -> None:
    run, _ = trained(recipe_file, tmp_path / "r")
    first = run.sample()["image"]
    again = Run.of(tmp_path / "r")
    again.load()
    assert torch.equal(again.sample()["image"], first)


def test_nothing_left_to_train_is_said(recipe_file: Path, tmp_path: Path) -> None:
    change = {"denoiser.freeze": True, "conditioners": None}
    with pytest.raises(IncompatibleParts, match="frozen"):
        trained(recipe_file, tmp_path / "r", **change)


class Two(Task):
    """Two objectives whose losses both touch both sides: only their own parameters may move."""

    def objectives(self, system: System) -> list[Objective]:
        inner = dict(system.denoiser.inner.named_parameters())  # type: ignore[union-attr]
        outer = dict(system.denoiser.outer.named_parameters())  # type: ignore[union-attr]
        self.seen: list[tuple[str, bool, bool]] = []

        def loss(name: str, batch: Batch, noise: Noise) -> Loss:
            t = torch.zeros(len(noise))
            value = system.output(batch["image"], t, system.codes(batch)).square().mean()
            self.seen.append((name, inner["weight"].requires_grad, outer["weight"].requires_grad))
            return Loss(value)

        return [
            Objective("in", inner, lambda batch, noise: loss("in", batch, noise)),
            Objective("out", outer, lambda batch, noise: loss("out", batch, noise)),
        ]

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        return {"image": batch["image"]}


def test_each_objective_moves_its_own_parameters_only(recipe_file: Path, tmp_path: Path) -> None:
    with diffloom.registry.add("task", "two", Two):
        change: dict[str, object] = {"task": {"type": "two"}, "train.steps": 1}
        run, log = trained(recipe_file, tmp_path / "r", **change)
        task = run.system.task
    assert isinstance(task, Two)
    assert task.seen == [("in", True, False), ("out", False, True)]
    assert {"in/loss", "out/loss"} <= log.records[0].keys()


def test_the_audit_names_what_gets_no_gradient_and_what_is_ignored(recipe_file: Path, tmp_path: Path) -> None:
    class Deaf(Task):
        """Trains the denoiser without its last layer and without any condition."""

        def objectives(self, system: System) -> list[Objective]:
            parameters = dict(system.denoiser.named_parameters())

            def loss(batch: Batch, noise: Noise) -> Loss:
                _, taps = system.denoiser(batch["image"], torch.zeros(len(noise)), read=("mid",))
                return Loss(taps["mid"].square().mean())

            return [Objective("deaf", parameters, loss)]

        def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
            return {"image": batch["image"]}

    with diffloom.registry.add("task", "deaf", Deaf):
        _, log = trained(recipe_file, tmp_path / "r", **{"task": {"type": "deaf"}, "train.steps": 1, "hooks": []})
    said = next(message for message in log.messages if "no gradient" in message)
    assert "told.weight" in said
    assert "outer.weight" in said
    assert "inner.weight" not in said


@given(st.floats(0.5, 0.999), st.integers(1, 30))
def test_average_follows_its_recursion(decay: float, updates: int) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    average = Average({"p": parameter}, decay=decay, warmup=False)
    parameter.data.fill_(1.0)
    for _ in range(updates):
        average.update()
    assert abs(float(average.copies["p"]) - (1 - decay**updates)) < 1e-9


def test_average_warms_up_as_latent_diffusion_does() -> None:
    average = Average({}, decay=0.9999, warmup=True)
    assert average.rate() == 2 / 11
    average.updates = 89
    assert average.rate() == pytest.approx(0.91)
    average.updates = 10**6
    assert average.rate() == 0.9999


def test_applying_the_average_comes_off_again() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    average = Average({"p": parameter}, decay=0.9, warmup=False)
    parameter.data.fill_(3.0)
    with average.applied():
        assert parameter.item() == 1.0
    assert parameter.item() == 3.0
    assert float(average.copies["p"]) == 1.0


class Numbers(Dataset):
    def __len__(self) -> int:
        return 10

    def read(self, index: int) -> dict[str, object]:
        return {"image": torch.full((1, 1, 1), float(index))}


def drawn(**arguments: int) -> list[list[float]]:
    stream = Stream(Numbers(), **({"seed": 1, "batch": 4, "start": 0, "stop": 6} | arguments))
    return [batch["image"].flatten().tolist() for batch in stream]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_where_another_stopped(workers: int) -> None:
    assert drawn()[2:] == drawn(start=2, workers=workers)


def test_every_epoch_sees_every_sample_once() -> None:
    flat = [value for batch in drawn(stop=5) for value in batch]
    assert sorted(flat[:10]) == sorted(flat[10:20]) == [float(i) for i in range(10)]
    assert flat[:10] != flat[10:20]


def test_processes_share_a_step_without_overlap() -> None:
    shares = [drawn(rank=rank, world=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == drawn()


@given(st.integers(0, 2**40), st.integers(0, 5), st.integers(1, 50))
def test_order_is_a_permutation(seed: int, epoch: int, length: int) -> None:
    assert sorted(order(seed, epoch, length)) == list(range(length))


KILLED = """\
diffloom: 1
name: killed
data:      {type: digits, size: 8}
schedule:  {type: cosine, steps: 20}
denoiser:  {type: unet, channels: 8, multipliers: [1], blocks: 1, attention: [], prediction: eps, dropout: 0.1}
sampler:   {type: ddim, steps: 2}
task:      {type: generate}
train:     {steps: 60, batch: 4, checkpoint_every: 3, log_every: 1}
hooks:     [metrics-log]
"""


def start(folder: Path, out: str, *prefix: str) -> "subprocess.Popen[bytes]":
    command = [*(prefix or (sys.executable, "-m", "diffloom")), "train", "killed.yaml", "--out", out]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def newest_step(folder: Path) -> int:
    return max((int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*")), default=0)


@pytest.mark.slow
def test_killed_ten_times_ends_as_if_it_never_was(tmp_path: Path) -> None:
    (tmp_path / "killed.yaml").write_text(KILLED.replace("steps: 60", "steps: 300"))
    process = start(tmp_path, "whole")
    assert process.wait(timeout=300) == 0, process.stderr and process.stderr.read().decode()
    chance = random.Random(7)
    for _ in range(10):
        before = newest_step(tmp_path / "broken")
        process = start(tmp_path, "broken")
        while newest_step(tmp_path / "broken") <= before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.4))
        assert process.poll() is None, "the run ended before it was killed: give it more steps"
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(tmp_path, "broken")
    assert process.wait(timeout=300) == 0, process.stderr and process.stderr.read().decode()
    assert weights_of(tmp_path / "broken") == weights_of(tmp_path / "whole")
    logs = [(tmp_path / out / "metrics.jsonl").read_bytes() for out in ("whole", "broken")]
    assert logs[0] == logs[1]
    assert len(logs[0].splitlines()) == 300


LAST_WORD = """\
import atexit, os, pathlib, runpy
from torch import distributed
word = pathlib.Path("rank-" + os.environ["RANK"])
atexit.register(lambda: word.write_text("in a group" if distributed.is_initialized() else "on its own"))
runpy.run_module("diffloom", run_name="__main__", alter_sys=True)
"""


def test_two_processes_train_as_one_and_part(tmp_path: Path) -> None:
    (tmp_path / "killed.yaml").write_text(
        KILLED.replace("steps: 60", "steps: 3").replace("dropout: 0.1", "dropout: 0.0")
    )
    one = start(tmp_path, "one")
    assert one.wait(timeout=120) == 0, one.stderr and one.stderr.read().decode()
    port = str(29500 + os.getpid() % 1000)
    torchrun = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        f"--master_port={port}",
        "last_word.py",
    )
    (tmp_path / "last_word.py").write_text(LAST_WORD)
    two = start(tmp_path, "two", *torchrun)
    assert two.wait(timeout=120) == 0, two.stderr and two.stderr.read().decode()
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["on its own"] * 2
    from safetensors.torch import load_file

    files = [sorted((tmp_path / out / "checkpoints").glob("*/weights.safetensors"))[-1] for out in ("one", "two")]
    a, b = (load_file(file) for file in files)
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)
    logs = [[json.loads(line)["loss"] for line in (tmp_path / out / "metrics.jsonl").open()] for out in ("one", "two")]
    assert logs[0] == pytest.approx(logs[1], abs=1e-4)


def test_hooks_that_raise_are_named_and_the_run_goes_on(recipe_file: Path, tmp_path: Path) -> None:
    class Bad:
        @diffloom.hook
        def diffloom_step(self, step: int) -> None:
            raise ZeroDivisionError("oh")

    log = Log()
    run = Run(diffloom.load(recipe_file), tmp_path / "r", plugins={"bad-one": Bad(), "log": log})
    run.train()
    assert run.step == 12
    assert any("bad-one" in message and "diffloom_step" in message for message in log.messages)


def test_unknown_hooks_are_refused_before_anything_is_written(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DiffloomError, match="nobody"):
        Run(diffloom.load(recipe_file, overrides={"hooks": ["nobody"]}), tmp_path / "r")
    assert not (tmp_path / "r").exists()
