"""The progress bar: a bar on a terminal, rare plain lines elsewhere."""

from io import StringIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from diffloom_report.progress import Progress, _Lines, duration, rate


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines() -> tuple[_Lines, Clock, StringIO]:
    text, clock = StringIO(), Clock()
    return _Lines(Console(file=text, width=40), clock), clock, text


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end() -> None:
    shown, clock, text = lines()
    for step in range(101):
        clock.now = step * 0.5
        shown.show("train", step, 100, "loss 0.5")
    said = text.getvalue().splitlines()
    assert said == [
        "train 20/100 (20 %), 2.0 steps/s, 40 s left, loss 0.5",
        "train 40/100 (40 %), 2.0 steps/s, 30 s left, loss 0.5",
        "train 60/100 (60 %), 2.0 steps/s, 20 s left, loss 0.5",
        "train 80/100 (80 %), 2.0 steps/s, 10 s left, loss 0.5",
        "train 100/100 (100 %), 2.0 steps/s, in 50 s, loss 0.5",
    ]


def test_lines_become_rarer_as_work_goes_on() -> None:
    shown, clock, text = lines()
    for step in range(36_000):
        clock.now = float(step)
        shown.show("train", step, 36_000, "")
    assert len(text.getvalue().splitlines()) < 100


def test_the_speed_of_a_resumed_run_counts_its_own_steps_only() -> None:
    shown, clock, text = lines()
    shown.show("train", 900, 1000, "")
    clock.now = 20
    shown.show("train", 910, 1000, "")
    assert text.getvalue().startswith("train 910/1000 (91 %), 2.0 s/step, 3 min 00 s left")


def run(step: int = 0, steps: int = 10) -> Any:
    train = SimpleNamespace(steps=steps)
    return cast(Any, SimpleNamespace(step=step, recipe=SimpleNamespace(header=SimpleNamespace(train=train))))


def test_on_a_terminal_there_is_a_bar_with_messages_above_it() -> None:
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    progress = Progress(console=console)
    progress.diffloom_run_started(run())
    for step in range(1, 11):
        progress.diffloom_progress("train", step, 10)
        progress.diffloom_step({"loss": 1 / step, "lr": 0.1})
        if step == 5:
            progress.diffloom_progress("sample", 1, 2)
            progress.diffloom_message("look here")
            progress.diffloom_progress("sample", 2, 2)
    progress.diffloom_run_finished()
    said = text.getvalue()
    assert "10/10" in said
    assert "look here" in said
    assert "loss 0.1111" in said
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")  # the cursor is back


def test_messages_of_a_log_are_plain_and_whole() -> None:
    text = StringIO()
    progress = Progress(console=Console(file=text, width=20))
    progress.diffloom_message("a [bold]message[/bold] that is longer than the log is wide")
    assert text.getvalue() == "a [bold]message[/bold] that is longer than the log is wide\n"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (60, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_durations_are_written_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(("speed", "said"), [(12.34, "12.3 steps/s"), (0.25, "4.0 s/step")])
def test_speeds_keep_a_number_above_one(speed: float, said: str) -> None:
    assert rate(speed, "step") == said
