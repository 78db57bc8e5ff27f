"""Curves as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffloom.errors import DiffloomError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from diffloom.cli.curves import Curve
    from diffloom.cli.losses import Losses
    from diffloom.cli.orders import Convergence

_PANELS = (("alpha", "signal α"), ("sigma", "noise σ"), ("log_snr", "log-SNR"), ("beta", "β of one step"))


def draw_schedules(curves: "Sequence[Curve]", file: Path) -> None:
    """Draw schedules in four panels; dots are the levels that the sampler visits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2).flat
    for axis, (name, title) in zip(axes, _PANELS, strict=True):
        for curve in curves:
            values = getattr(curve, name)
            (line,) = axis.plot(curve.t, values, label=curve.name)
            # a level between two times of the table is drawn at the nearest one
            axis.plot(
                curve.visited, [values[round(t)] for t in curve.visited], ".", color=line.get_color(), markersize=5
            )
        axis.set_title(title)
        axis.set_xlabel("t")
        axis.grid(alpha=0.3)
    figure.axes[0].legend()
    _save(figure, file)


def draw_losses(losses: "Losses", file: Path) -> None:
    """Draw the figures of runs, a panel for each figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5 * len(losses)), layout="constrained")
    axes = figure.subplots(len(losses), 1, squeeze=False)[:, 0]
    for axis, (name, runs) in zip(axes, losses.items(), strict=True):
        for run, points in runs.items():
            axis.plot([x for x, _ in points], [y for _, y in points], label=run, linewidth=1)
        if all(y > 0 for points in runs.values() for _, y in points):
            axis.set_yscale("log")
        axis.set_ylabel(name)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, file)


def draw_orders(found: "Sequence[Convergence]", file: Path) -> None:
    """Draw the errors of samplers over their evaluations on logarithmic axes, with the orders measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    axis = figure.subplots()
    for each in found:
        runs = [run for run in each.runs if run.error > 0]
        style = "--" if each.stochastic else "-"
        label = f"{each.name}: order {each.order:.2f}"
        axis.plot(
            [run.evaluations for run in runs], [run.error for run in runs], f"o{style}", label=label, markersize=4
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("evaluations")
    axis.set_ylabel("error, Gaussian data (dashed: of the moments)")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    _save(figure, file)


def _save(figure: "Figure", file: Path) -> None:
    formats = figure.canvas.get_supported_filetypes()
    if file.suffix.removeprefix(".") not in formats:
        raise DiffloomError(
            "pictures have no such format",
            where=str(file),
            expected=f"one of {', '.join(f'.{ending}' for ending in sorted(formats))}",
            got=file.suffix or "no ending",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
