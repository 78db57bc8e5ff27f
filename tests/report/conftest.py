"""A real run over a network of one layer, so small that training costs next to nothing."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

import diffloom
from diffloom import checkpoint
from diffloom.condition import Condition
from diffloom.denoiser import Denoiser
from diffloom.engine.hooks import hook
from diffloom.engine.run import Run
from diffloom.space import Space

ALL = ("metrics-log", "samples", "tensorboard", "report")
STEPS = 12

RECIPE = f"""\
diffloom: 1
name: woven
description: Digits <small & "quick">
data: {{type: digits, size: 8}}
schedule: {{type: cosine, steps: 20}}
denoiser: {{type: one-layer, prediction: v}}
sampler: {{type: ddim, steps: 4}}
task: {{type: generate}}
train: {{steps: {STEPS}, batch: 8, log_every: 2, checkpoint_every: 4, sample_every: 5}}
sample: {{count: 6}}
eval:
  samplers:
    ddpm: {{type: ddpm}}
    quick: {{type: ddim, steps: 2}}
"""


class OneLayer(Denoiser):
    """A convolution."""

    def __init__(self, *, space: Space) -> None:
        super().__init__()
        self.out_channels = space.channels
        self.layer = nn.Conv2d(space.channels, space.channels, 3, padding=1)

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor:
        output: Tensor = self.layer(x_t)
        return output


class Killed(BaseException):
    """Stops a run where it stands, as nothing that runs can foresee."""


class Killer:
    """Kills a run after one of its steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    @hook
    def diffloom_progress(self, run: Run, stage: str, done: int) -> None:
        if stage == "train" and done == self.after:
            raise Killed


@pytest.fixture(scope="session")
def open_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Run]]:
    """Return `open_run(directory, hooks=ALL, **plugins)`."""
    recipe = tmp_path_factory.mktemp("recipe") / "woven.yaml"
    recipe.write_text(RECIPE)
    with diffloom.registry.add("denoiser", "one-layer", OneLayer):

        def opened(directory: Path, hooks: Sequence[str] = ALL, **plugins: Any) -> Run:
            run = Run(diffloom.load(recipe), directory, hooks=hooks, plugins=plugins)
            assert run.hooks.quarantined == []
            return run

        yield opened


@pytest.fixture(scope="session")
def whole(open_run: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was trained, sampled and evaluated; not to be changed."""
    directory = tmp_path_factory.mktemp("runs") / "woven"
    run = open_run(directory)
    run.train()
    run.sample()
    figures = {
        "sampler": {"fid": 12.25, "bits": 3.5},
        "quick": {"fid": 50.5},
        "ddpm": {"fid": 8.0, "bits": float("nan")},
    }

    checkpoint.write_json(directory / "evaluation.json", {"step": run.step, "figures": figures})
    run.call("diffloom_evaluated", figures=figures)
    run.message("audit: no gradient reaches <nothing>")
    run.call("diffloom_run_finished")
    return directory
