"""A small recipe, a trained run of it, and a way to call the command line."""

import os
import shutil
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest

from diffloom.cli import main

RECIPE = """\
diffloom: 1
name: tiny
data:      {type: digits, size: 8}
schedule:  {type: cosine, steps: 20}
denoiser:  {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, prediction: v}
conditioners:
  digit:   {type: class-label, classes: 10, drop: 0.1, guidance: 2.0}
sampler:   {type: ddim, steps: 3}
task:      {type: generate}
train:     {steps: 4, batch: 8, checkpoint_every: 2, log_every: 1}
sample:    {count: 10}
hooks:     [metrics-log]
"""


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


Call = Callable[..., Said]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return ``call("list", "--json")``; it runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str | Path) -> Said:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return the file of the small recipe."""
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which ``runs/tiny`` was trained."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(RECIPE)
    with chdir(folder):
        assert main(["train", "tiny.yaml", "--quiet"]) == 0
    return folder


@pytest.fixture
def trained(call: Call, recipe: Path, trained_once: Path, tmp_path: Path) -> Path:
    """Return a copy of the trained run, in ``runs`` of the folder where commands run."""
    return Path(shutil.copytree(trained_once / "runs", tmp_path / "runs")) / "tiny"


def environment(*folders: Path) -> dict[str, str]:
    """Return the environment of a process that finds the packages in some folders."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "NO_COLOR": "1", "COLUMNS": "100"}


def distribution(folder: Path, name: str, entry_points: str, **modules: str) -> None:
    """Write an installed distribution into a folder."""
    info = folder / f"{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
