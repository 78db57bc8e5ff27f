"""Stopping: the first Ctrl-C ends a run after the step at hand, with a checkpoint; a second one ends it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Whether the user asked to stop."""

    asked = False


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Within the context the first SIGINT or SIGTERM is noted in the `Stop` that is given, the next acts as before."""
    stop = Stop()
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: object) -> None:
        stop.asked = True
        signal.signal(number, kept[signal.Signals(number)])

    try:
        for number in kept:
            signal.signal(number, ask)
    except ValueError:  # not the main thread: signals are somebody else's business
        kept = {}
    try:
        yield stop
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
