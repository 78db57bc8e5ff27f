"""Checkpoints: whole or not at all, and never believed without their hash."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffloom import checkpoint
from diffloom.checkpoint import Checkpoint
from diffloom.errors import CheckpointError


def made(value: float) -> Checkpoint:
    return Checkpoint(
        {"weights": {"w": torch.full((3,), value), "half": torch.ones(2, dtype=torch.bfloat16)}}, {"n": 1}
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 7, made(1.5), keep=2)
    back = checkpoint.load(path)
    assert back.state == {"n": 1}
    assert torch.equal(back.tensors["weights"]["w"], torch.full((3,), 1.5))
    assert back.tensors["weights"]["half"].dtype == torch.bfloat16


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    one = checkpoint.save(tmp_path / "a", 1, made(1), keep=2)
    two = checkpoint.save(tmp_path / "b", 1, made(1), keep=2)
    assert {f.name: f.read_bytes() for f in one.iterdir()} == {f.name: f.read_bytes() for f in two.iterdir()}


def truncate(path: Path) -> None:
    file = path / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def flip(path: Path) -> None:
    file = path / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


def drop(path: Path) -> None:
    (path / "weights.safetensors").unlink()


def rewrite(path: Path) -> None:
    record = json.loads((path / "state.json").read_text())
    record["state"]["n"] = 2
    (path / "state.json").write_text(json.dumps(record))


def empty(path: Path) -> None:
    (path / "state.json").write_text("")


@pytest.mark.parametrize("damage", [truncate, flip, drop, rewrite, empty])
def test_damage_is_seen_and_the_one_before_is_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    checkpoint.save(tmp_path, 1, made(1), keep=2)
    damage(checkpoint.save(tmp_path, 2, made(2), keep=2))
    told: list[str] = []
    found = checkpoint.newest(tmp_path, told.append)
    assert found is not None
    assert found[0] == 1
    assert len(told) == 1
    assert "step-00000002" in told[0]


def test_only_the_newest_are_kept_and_debris_goes(tmp_path: Path) -> None:
    (tmp_path / ".step-00000003.999").mkdir()
    for step in range(5):
        checkpoint.save(tmp_path, step, made(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "none", lambda _: None) is None


@pytest.mark.parametrize("reader", [checkpoint.load_tensors, checkpoint.shapes])
def test_a_file_that_is_no_safetensors_is_named(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"PK\x03\x04 a pickle in a zip")
    with pytest.raises(CheckpointError, match=r"weights\.bin"):
        reader(file)
    with pytest.raises(CheckpointError, match="no such file"):
        reader(tmp_path / "absent.safetensors")
