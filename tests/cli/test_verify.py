"""`verify`."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call

WRONG = '''\
import torch
from torch import Tensor

from diffloom.schedule import Schedule


class Falling(Schedule):
    """Log-SNR that rises at the end of every table of four levels or more."""

    def __init__(self, *, steps: int = 3) -> None:
        self.steps = steps

    def table(self) -> tuple[Tensor, Tensor]:
        angle = torch.arange(1, self.steps + 1).double() / (self.steps + 1) * torch.pi / 2
        if self.steps > 3:
            angle[-1] = angle[0]
        return angle.cos(), angle.sin()
'''


def test_every_law_is_a_line(call: Call) -> None:
    said = call("verify", "schedule/linear", "autoencoder/identity")
    assert said.code == 0, said.err
    assert {line.split()[0] for line in said.out.splitlines()} == {"passed", "not"}  # as in "not applicable"
    assert "passed            schedule/linear  posterior-is-bayes-rule" in said.out.splitlines()
    assert "autoencoder/identity" in said.out


def test_a_broken_law_comes_with_the_smallest_example(call: Call, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    said = call("verify", "schedule/falling", "--plugin", "wrong.py")
    assert said.code == 2
    lines = said.out.splitlines()
    at = lines.index("failed            schedule/falling  any-number-of-levels")
    assert "log-SNR does not fall at t = 3" in lines[at + 1]
    assert lines[at + 2] == "    smallest example: steps = 4"
    assert said.err.strip() == "1 of 8 checks failed"


def test_programs_get_json(call: Call, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    said = call("verify", "schedule/falling", "--plugin", "wrong.py", "--json")
    assert said.code == 2
    found = json.loads(said.out)
    assert not found["ok"]
    assert len(found["checks"]) == 8
    failed = [check for check in found["checks"] if check["status"] == "failed"]
    assert [check["example"] for check in failed] == ["steps = 4"]
    assert failed[0]["component"] == "schedule/falling"


@pytest.mark.parametrize(
    ("part", "expected"), [("schedul/linear", "schedule"), ("schedule/lineer", "linear"), ("hooks/progress", "sampler")]
)
def test_what_cannot_be_verified_is_said(call: Call, part: str, expected: str) -> None:
    said = call("verify", part)
    assert said.code == 2
    assert len(said.lines) == 1
    assert expected in said.err


def test_what_is_declared_nothing_about_is_said(call: Call) -> None:
    said = call("verify", "schedule/zero-terminal-snr")
    assert said.code == 0
    assert "not applicable    schedule/zero-terminal-snr  any-number-of-levels: it takes no `steps`" in said.out
