"""A stranger's conditioners, installed for real: found by name, neutral at first, trained by an ordinary recipe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BASE = """\
diffloom: 1
name: ports
data:      {type: digits, size: 8}
schedule:  {type: cosine, steps: 100}
denoiser:  {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, attention: [4], prediction: v}
sampler:   {type: ddim, steps: 3}
task:      {type: generate}
train:     {steps: 0, batch: 8, lr: 3.0e-3, log_every: 1, ema: 0.9, checkpoint_every: 50}
sample:    {count: 4}
hooks:     [metrics-log]
"""
TOLD = """\
extends: base.yaml
name: told
conditioners:
  hint: {type: hint-branch, width: 4}
  time: {type: time-modulation, width: 8}
train: {steps: 40}
"""
NEUTRAL = """\
import diffloom, torch
base, told = diffloom.load("base.yaml").build(), diffloom.load("told.yaml").build()
torch.manual_seed(1)
for weight in base.denoiser.parameters():  # a new network answers 0 to everything: give it something to say
    torch.nn.init.normal_(weight, std=0.2)
told.denoiser.load_state_dict(base.denoiser.state_dict())
images = torch.rand(4, 1, 8, 8) * 2 - 1
batch = {"image": images}
x, t = torch.randn(4, 1, 8, 8), torch.tensor([0, 30, 60, 99])
with torch.no_grad():
    same = torch.equal(base.output(x, t, {}), told.output(x, t, told.codes(batch)))
    _, taps = told.denoiser(x[:1].repeat(4, 1, 1, 1), t, read=("up.0", "up.1"))
print(same, {name: tuple(h.shape) for name, h in taps.items()}, taps["up.0"].std(0).max().item() > 0)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(HERE / "diffloom_port_examples")], check=True, timeout=120)
    return target


def run(installed: Path, folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "told.yaml").write_text(TOLD)
    return tmp_path


def test_installation_alone_publishes_the_parts(installed: Path, folder: Path) -> None:
    listed = run(installed, folder, sys.executable, "-m", "diffloom", "list", "conditioner")
    assert "hint-branch" in listed
    assert "diffloom-port-examples 0.1.0" in listed


def test_the_parts_are_neutral_at_first_and_taps_are_read_in_one_batch(installed: Path, folder: Path) -> None:
    said = run(installed, folder, sys.executable, "-c", NEUTRAL)
    assert said.strip() == "True {'up.0': (4, 16, 4, 4), 'up.1': (4, 16, 4, 4)} True"


def test_an_ordinary_recipe_trains_and_samples_them(installed: Path, folder: Path) -> None:
    run(installed, folder, sys.executable, "-m", "diffloom", "check", "told.yaml")
    run(installed, folder, sys.executable, "-m", "diffloom", "train", "told.yaml")
    losses = [json.loads(line)["loss"] for line in (folder / "runs/told/metrics.jsonl").read_text().splitlines()]
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])
    moved = run(
        installed,
        folder,
        sys.executable,
        "-c",
        "from safetensors.torch import load_file; from pathlib import Path\n"
        "w = load_file(sorted(Path('runs/told/checkpoints').glob('*/weights.safetensors'))[-1])\n"
        "print(all(v.abs().max() > 0 for k, v in w.items() if '.shifts.' in k or '.heads.' in k))",
    )
    assert moved.strip() == "True"
    run(installed, folder, sys.executable, "-m", "diffloom", "sample", "runs/told", "--count", "4")
    assert "diffloom-port-examples 0.1.0" in (folder / "runs/told/recipe.lock.yaml").read_text()
