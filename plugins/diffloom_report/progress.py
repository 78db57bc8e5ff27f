"""Progress: what a run is doing, how fast, and how long it will take; on stderr.

On a terminal a bar for each kind of work, with messages printed above it. Elsewhere, as in a log file, a plain line
now and then: the longer the work, the rarer.
"""

import atexit
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from diffloom.engine.hooks import hook

if TYPE_CHECKING:
    from diffloom.engine.run import Run

_FIRST = 10.0
_SHARE = 0.1
_TRAIN = "train"


class Display(Protocol):
    """Where progress is shown."""

    def show(self, stage: str, done: int, total: int, note: str) -> None:
        """Show that `done` of `total` units of a stage are finished."""

    def message(self, text: str) -> None:
        """Show something that the user should read."""

    def close(self) -> None:
        """Leave the display as it stands."""


class Progress:
    """The hook plugin.

    Args:
        console: Where to print; stderr by default.
    """

    def __init__(self, *, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False)
        self._display: Display = _Terminal(self._console) if self._console.is_terminal else _Lines(self._console)
        self._note = ""
        atexit.register(self._display.close)

    @hook
    def diffloom_run_started(self, run: "Run") -> None:
        """Show where training begins or goes on."""
        self._note = ""
        self._display.show(_TRAIN, run.step, run.recipe.header.train.steps, "")

    @hook
    def diffloom_step(self, record: dict[str, float]) -> None:
        """Remember the losses, to be shown with the next progress."""
        losses = [name for name in record if name == "loss" or name.endswith("/loss")]
        self._note = "  ".join(f"{name} {record[name]:.4g}" for name in losses)

    @hook
    def diffloom_progress(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage."""
        self._display.show(stage, done, total, self._note if stage == _TRAIN else "")

    @hook
    def diffloom_message(self, text: str) -> None:
        """Print a message."""
        self._display.message(text)

    @hook
    def diffloom_run_finished(self) -> None:
        """Leave the bar as it stands."""
        self._display.close()


class _Terminal:
    """Bars that are drawn anew; one for each stage at work, such as live samples within training."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def show(self, stage: str, done: int, total: int, note: str) -> None:
        bars = self._started()
        if stage not in self._tasks:
            self._tasks[stage] = bars.add_task(stage, total=total, completed=done, note=note, unit=_unit(stage))
        bars.update(self._tasks[stage], completed=done, total=total, note=note)
        if done < total:
            return
        if len(self._tasks) == 1:
            self.close()
        else:
            bars.remove_task(self._tasks.pop(stage))

    def message(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        bars, self._bars, self._tasks = self._bars, None, {}
        if bars is not None:
            bars.stop()

    def _started(self) -> Bars:
        if self._bars is None:
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Speed(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
            )
            self._bars.start()
        return self._bars


class _Speed(ProgressColumn):
    """Units per second, and the time that is left; the time that it took once all is done."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text()
        if task.finished:
            return Text(f"{rate(speed, task.fields['unit'])} in {duration(task.elapsed or 0)}")
        left = task.time_remaining
        ahead = "" if left is None else f", {duration(left)} left"
        return Text(rate(speed, task.fields["unit"]) + ahead)


@dataclass
class _Stage:
    """Since when a stage is at work, and when it was last spoken of."""

    began: float
    first: int
    told: float


class _Lines:
    """A line now and then.

    Args:
        console: Where to print.
        clock: Seconds that only rise.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        self._stages: dict[str, _Stage] = {}

    def show(self, stage: str, done: int, total: int, note: str) -> None:
        now = self._clock()
        known = self._stages.setdefault(stage, _Stage(now, done, now))
        pause = max(_FIRST, _SHARE * (now - known.began))
        if done < total and now - known.told < pause:
            return
        known.told = now
        made, seconds = done - known.first, now - known.began
        parts = [f"{stage} {done}/{total} ({100 * done // max(total, 1)} %)"]
        if made and seconds > 0:
            speed = made / seconds
            parts += [rate(speed, _unit(stage))]
            parts += [f"{duration((total - done) / speed)} left" if done < total else f"in {duration(seconds)}"]
        self.message(", ".join([*parts, note] if note else parts))
        if done >= total:
            del self._stages[stage]

    def message(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        self._stages = {}


def rate(speed: float, unit: str) -> str:
    """Write a speed so that its number is above one: 12.3 steps/s, or 4.1 s/step."""
    return f"{speed:.1f} {unit}s/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}"


def duration(seconds: float) -> str:
    """Write a length of time: 42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _unit(stage: str) -> str:
    return "step" if stage == _TRAIN else "item"
