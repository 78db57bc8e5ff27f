"""Metrics log: a run's figures as JSON lines.

    metrics.jsonl   {"step": 10, "loss": …}: a function of the recipe alone, without clock times
    timings.jsonl   when the run was at which step, and how fast
    messages.log    what the user was told

The law of metrics.jsonl: however often a run is killed and resumed, its file ends with the bytes of an unbroken one.
A run that goes on from step n therefore first forgets the records after n, and the one that was cut short.
"""

import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from diffloom.engine.hooks import hook
from diffloom_report import files

if TYPE_CHECKING:
    from pathlib import Path

    from diffloom.engine.run import Run


class MetricsLog:
    """Writes figures, timings and messages."""

    def __init__(self) -> None:
        self._before: tuple[int, float] | None = None

    @hook
    def diffloom_run_started(self, run: "Run") -> None:
        """Forget the records after the step at which the run goes on."""
        _forget_after(run.directory / files.METRICS, run.step)
        _forget_after(run.directory / files.TIMINGS, None)
        self._before = (run.step, time.perf_counter())
        _note(run, "started", run.step)

    @hook
    def diffloom_step(self, run: "Run", step: int, record: dict[str, float]) -> None:
        """Add a record; figures that are not finite are null, as JSON has no word for them."""
        figures = {name: value if math.isfinite(value) else None for name, value in record.items()}
        files.append_record(run.directory / files.METRICS, {"step": step, **figures})
        self._time(run, step)

    @hook
    def diffloom_message(self, run: "Run", text: str) -> None:
        """Add a message; its further lines are indented, so that one message is seen to be one."""
        said = text.replace("\n", "\n    ")
        files.append(run.directory / files.MESSAGES, f"{_now()} step {run.step}: {said}")

    @hook
    def diffloom_run_finished(self, run: "Run") -> None:
        """Note when the run stopped, and where."""
        _note(run, "finished", run.step)
        self._before = None

    def _time(self, run: "Run", step: int) -> None:
        now = time.perf_counter()
        if self._before is None or step <= self._before[0]:
            self._before = (step, now)
            return
        steps, seconds = step - self._before[0], now - self._before[1]
        self._before = (step, now)
        rate = {"seconds": round(seconds, 4), "steps_per_second": round(steps / max(seconds, 1e-9), 4)}
        files.append_record(run.directory / files.TIMINGS, {"event": "step", "step": step, "at": _now(), **rate})


def _note(run: "Run", event: str, step: int) -> None:
    files.append_record(run.directory / files.TIMINGS, {"event": event, "step": step, "at": _now()})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _forget_after(path: "Path", step: int | None) -> None:
    """Keep a file's complete records, byte for byte, up to `step` where one is given."""
    if not path.is_file():
        return
    content = path.read_bytes()
    kept = b"".join(line + b"\n" for line in content.split(b"\n") if _keeps(line, step))
    if kept != content:
        files.replace(path, kept)


def _keeps(line: bytes, step: int | None) -> bool:
    record = files.record_of(line.decode(errors="replace"))
    if record is None or not isinstance(record.get("step"), int):
        return False
    return step is None or record["step"] <= step
