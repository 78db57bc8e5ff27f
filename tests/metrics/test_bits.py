from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.system import System
from diffloom_metrics.bits import BitsPerDim
from tests.metrics.fakes import Judged, listed, same


class Likely:
    """A task whose likelihood is the image's mean, and which notes what it was asked."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.steps: set[int | None] = set()

    def bits_per_dim(
        self, system: System, batch: Batch, noise: Noise, *, steps: int | None = None
    ) -> dict[str, Tensor]:
        self.seeds += noise.seeds
        self.steps.add(steps)
        mean = batch["image"].mean(dim=(1, 2, 3))
        return {"total": mean + 1, "prior": torch.ones(len(mean))}


def test_terms_are_averaged_over_items_of_the_held_out_data(tmp_path: Path) -> None:
    task, held_out = Likely(), listed(70, 1, 4, 4, seed=1)
    evaluation = Judged(listed(5, 1, 4, 4), tmp_path, same, held_out=held_out, count=500, task=task)
    found = BitsPerDim().measure(evaluation)
    truth = torch.stack([sample["image"] for sample in held_out.samples]).double()
    assert found["bits-per-dim/total"] == pytest.approx(float(truth.mean() + 1), abs=1e-6)
    assert found["bits-per-dim/prior"] == 1
    assert len(task.seeds) == len(set(task.seeds)) == 70
    assert task.steps == {None}


def test_fewer_items_and_levels_and_the_training_data_on_request(tmp_path: Path) -> None:
    task = Likely()
    evaluation = Judged(listed(9, 1, 4, 4), tmp_path, same, held_out=listed(3, 1, 4, 4), task=task)
    BitsPerDim(data="train", count=8, steps=20).measure(evaluation)
    assert len(task.seeds) == 8
    assert task.steps == {20}


def test_a_task_without_likelihood_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleParts, match="no likelihood"):
        BitsPerDim().measure(Judged(listed(3, 1, 4, 4), tmp_path, same, task=SimpleNamespace(paired=True)))
