"""TensorBoard: a run's figures and samples as event files under `tensorboard/` in its folder.

A run that goes on from step n purges what it wrote after n, so the curves of a killed and resumed run have no
double points. Events are flushed before a checkpoint counts, so they have no holes either.
"""

import time
from typing import TYPE_CHECKING, Any

from diffloom.engine.hooks import hook

if TYPE_CHECKING:
    from pathlib import Path

    from torch.utils.tensorboard import SummaryWriter

    from diffloom.engine.run import Run

FOLDER = "tensorboard"


class TensorBoard:
    """Writes event files."""

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None

    @hook
    def diffloom_run_started(self, run: "Run") -> None:
        """Open an event file that takes back what an earlier one says of later steps."""
        self._close()
        self._writer = _new_writer(run, purge_step=run.step + 1)

    @hook
    def diffloom_step(self, run: "Run", step: int, record: dict[str, float]) -> None:
        """Write the figures of a step, under train/."""
        writer = self._open(run)
        for name, value in record.items():
            writer.add_scalar(f"train/{name}", value, step)

    @hook
    def diffloom_sampled(self, run: "Run", step: int, outputs: dict[str, Any]) -> None:
        """Write the pictures of samples, under samples/."""
        import numpy as np

        from diffloom_report.samples import draw

        writer = self._open(run)
        for name, picture in draw(run, outputs).items():
            writer.add_image(f"samples/{name}", np.asarray(picture), step, dataformats="HWC")
        writer.flush()

    @hook
    def diffloom_evaluated(self, run: "Run", figures: dict[str, dict[str, float]]) -> None:
        """Write the figures of an evaluation, under evaluation/SAMPLER/."""
        writer = self._open(run)
        for sampler, measured in figures.items():
            for metric, value in measured.items():
                writer.add_scalar(f"evaluation/{sampler}/{metric}", value, run.step)
        writer.flush()

    @hook
    def diffloom_checkpoint(self, run: "Run", step: int, path: "Path") -> None:
        """Put on disk what a run that goes on from here does not write again."""
        self._open(run).flush()

    @hook
    def diffloom_run_finished(self, run: "Run") -> None:
        """Put everything on disk; what is drawn or judged afterwards goes into the same file."""
        self._open(run).flush()

    def _open(self, run: "Run") -> "SummaryWriter":
        if self._writer is None:
            self._writer = _new_writer(run, purge_step=None)
        return self._writer

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _new_writer(run: "Run", purge_step: int | None) -> "SummaryWriter":
    from torch.utils.tensorboard import SummaryWriter

    folder = run.directory / FOLDER
    _wait_for_a_later_name(folder)
    return SummaryWriter(folder, purge_step=purge_step, flush_secs=10)


def _wait_for_a_later_name(folder: "Path") -> None:
    """Let the second end in which the newest event file was named: readers go by the names."""
    seconds = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    now = time.time()
    if str(int(now)) in seconds:
        time.sleep(1 - now % 1)
