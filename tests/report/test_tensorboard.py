from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffloom_report import grid

from .stand_in import hooks, stand_in


def read(directory: Path) -> EventAccumulator:
    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return events


def test_figures_are_read_back_and_a_resumed_run_has_no_point_twice(tmp_path: Path) -> None:
    for start, stop, scale in ((0, 8, 1.0), (5, 10, 2.0)):
        run, acting = stand_in(tmp_path, step=start), hooks("tensorboard")
        acting.call("diffloom_run_started", run=run)
        for step in range(start + 1, stop + 1):
            acting.call("diffloom_step", run=run, step=step, record={"loss": step * scale, "lr": 0.5})
        acting.call("diffloom_checkpoint", run=run, step=stop, path=tmp_path)  # then it is killed
    events = read(tmp_path)
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/lr"}
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(step, float(step)) for step in range(1, 6)] + [(step, step * 2.0) for step in range(6, 11)]


def test_figures_of_an_evaluation_are_kept_by_sampler(tmp_path: Path) -> None:
    acting, run = hooks("tensorboard"), stand_in(tmp_path, step=40)
    acting.call("diffloom_evaluated", run=run, figures={"sampler": {"fid": 3.5}, "ddim-10": {"fid": 7.0}})
    events = read(tmp_path)
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {"evaluation/sampler/fid": [(40, 3.5)], "evaluation/ddim-10/fid": [(40, 7.0)]}


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_picture_is_that_of_the_sheet(tmp_path: Path, channels: int) -> None:
    images = torch.rand(4, channels, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    outputs = {"image": images, "seeds": range(4), "batch": {}}
    hooks("tensorboard").call("diffloom_sampled", run=stand_in(tmp_path), step=3, outputs=outputs)
    (event,) = read(tmp_path).Images("samples/image")
    assert event.step == 3
    png = tmp_path / "seen.png"
    png.write_bytes(event.encoded_image_string)
    assert np.array_equal(np.asarray(Image.open(png)), np.asarray(grid(images)))
