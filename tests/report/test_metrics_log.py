import json
import math
import random
from pathlib import Path

import pytest

from diffloom_report.files import records

from .stand_in import hooks, stand_in

LAST = 200
EVERY = 10
SAVED = 50


def figures(step: int) -> dict[str, float]:
    return {"lr": 1e-3, "loss": math.exp(-step / 70) + 1 / 3, "gradient_norm": step**0.5}


def train(directory: Path, start: int, stop: int) -> None:
    """Do what the engine does from step `start` until it is killed after step `stop`."""
    run = stand_in(directory, step=start)
    acting = hooks("metrics-log")
    acting.call("diffloom_run_started", run=run)
    for step in range(start + 1, stop + 1):
        if step % EVERY == 0 or step == 1:
            acting.call("diffloom_step", run=run, step=step, record=figures(step))


def test_a_run_killed_at_any_moment_ends_with_the_bytes_of_an_unbroken_one(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole", 0, LAST)
    expected = (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert expected.count(b"\n") == LAST // EVERY + 1
    chance = random.Random(0)
    for attempt in range(10):
        broken = tmp_path / f"broken{attempt}"
        broken.mkdir()
        saved = 0
        while saved < LAST:
            reached = min(LAST, saved + chance.randint(1, 90))
            train(broken, saved, reached)
            saved = reached // SAVED * SAVED
            file = broken / "metrics.jsonl"
            if saved < LAST and file.is_file():  # the kill came in the middle of a later record
                cut = json.dumps({"step": reached + 1, **figures(reached + 1)})
                file.write_bytes(file.read_bytes() + cut[: chance.randint(1, len(cut))].encode())
        assert (broken / "metrics.jsonl").read_bytes() == expected


@pytest.mark.parametrize("start", [10, 20])
def test_a_record_that_lacks_only_its_newline_is_neither_lost_nor_doubled(tmp_path: Path, start: int) -> None:
    train(tmp_path, 0, 20)
    file = tmp_path / "metrics.jsonl"
    expected = file.read_bytes()
    file.write_bytes(expected[:-1])
    train(tmp_path, start, 20)
    assert file.read_bytes() == expected


def test_every_record_is_on_disk_as_soon_as_the_hook_returns(tmp_path: Path) -> None:
    acting, run = hooks("metrics-log"), stand_in(tmp_path)
    acting.call("diffloom_run_started", run=run)
    for step in (1, 2, 3):
        acting.call("diffloom_step", run=run, step=step, record=figures(step))
        assert [record["step"] for record in records(tmp_path / "metrics.jsonl")] == list(range(1, step + 1))


def test_figures_that_are_not_finite_are_null_in_json_that_any_reader_takes(tmp_path: Path) -> None:
    record = {"loss": math.nan, "gradient_norm": math.inf, "lr": 0.5}
    hooks("metrics-log").call("diffloom_step", run=stand_in(tmp_path), step=7, record=record)
    text = (tmp_path / "metrics.jsonl").read_text()

    def refuse(word: str) -> float:
        raise AssertionError(word)

    assert json.loads(text, parse_constant=refuse) == {"step": 7, "loss": None, "gradient_norm": None, "lr": 0.5}


def test_timings_are_kept_apart_and_survive_a_kill(tmp_path: Path) -> None:
    train(tmp_path, 0, 50)
    file = tmp_path / "timings.jsonl"
    file.write_bytes(file.read_bytes() + b'{"event": "st')
    train(tmp_path, 30, 60)
    found = records(file)
    assert len(found) == len(file.read_bytes().splitlines())
    assert [record["step"] for record in found if record["event"] == "started"] == [0, 30]
    steps = [record for record in found if record["event"] == "step"]
    assert [record["step"] for record in steps] == [1, 10, 20, 30, 40, 50, 40, 50, 60]
    for record in steps:
        assert record["seconds"] >= 0
        assert record["steps_per_second"] > 0
    assert "at" not in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.parametrize("text", ["audit: no gradient reaches mid", "two\nlines"])
def test_messages_are_kept_one_to_a_paragraph(tmp_path: Path, text: str) -> None:
    acting, run = hooks("metrics-log"), stand_in(tmp_path, step=12)
    for _ in range(2):
        acting.call("diffloom_message", run=run, text=text)
    lines = (tmp_path / "messages.log").read_text().splitlines()
    starts = [line for line in lines if not line.startswith(" ")]
    assert len(starts) == 2
    assert starts[0].endswith(f" step 12: {text.splitlines()[0]}")
    assert len(lines) == 2 * len(text.splitlines())
