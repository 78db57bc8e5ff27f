"""The logged figures of runs, read from their `metrics.jsonl`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffloom.cli.console import aligned, figure
from diffloom.cli.terminal import Points, plotted
from diffloom.cli.work import run_of
from diffloom.errors import DataError
from diffloom_registry.errors import did_you_mean, nearest

Losses = Mapping[str, Mapping[str, Points]]
"""Figure → run → (step, value) points."""

LOG = "metrics.jsonl"


def read(names: Sequence[str], figures: Sequence[str]) -> Losses:
    """Return some figures of some runs.

    Args:
        names: Runs' folders, names in `runs/`, or recipes.
        figures: Names of logged figures.

    Raises:
        DataError: Where a run logged nothing, or no such figure.
    """
    records = {name: _records(run_of(name) / LOG) for name in names}
    for name, found in records.items():
        known = sorted({key for record in found for key in record} - {"step"})
        for wanted in figures:
            if wanted not in known:
                near = nearest(wanted, known)
                raise DataError(
                    f"the run logged no figure {wanted!r}",
                    where=name,
                    expected=f"one of {', '.join(known)}",
                    remedy=did_you_mean(near) if near else None,
                )
    return {
        wanted: {name: [(r["step"], r[wanted]) for r in found if wanted in r] for name, found in records.items()}
        for wanted in figures
    }


def described(losses: Losses) -> str:
    """Return the curves as text, each run with where it began, its lowest and its last value."""
    return "\n\n".join(f"{plotted(runs, title=name)}\n{_ends(runs)}" for name, runs in losses.items())


def _ends(runs: Mapping[str, Points]) -> str:
    rows = [["run", "steps", "first", "lowest", "last"]]
    for name, points in runs.items():
        values = [value for _, value in points]
        rows.append([name, f"{points[-1][0]:g}", *map(figure, (values[0], min(values), values[-1]))])
    return aligned(rows, indent=2)


def _records(file: Path) -> list[dict[str, float]]:
    """Return the whole lines of a log, without figures that were not finite; the last line may be cut short."""
    if not file.is_file():
        raise DataError("the run has no log", where=str(file), remedy="train it with the hook plugin metrics-log")
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    records = [json.loads(line) for line in lines if line]
    found = [{key: float(value) for key, value in record.items() if value is not None} for record in records]
    if not found:
        raise DataError("the log is empty", where=str(file), remedy="train the run for a step at least")
    return found
