"""`plot schedule` and `plot run`."""

from pathlib import Path
from typing import Annotated

import typer

from diffloom.cli import options
from diffloom.cli.console import note, out

app = typer.Typer(
    help="Draw schedules, and the loss curves of runs.",
    short_help="Draw schedules and loss curves",
    no_args_is_help=True,
)

Picture = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Also draw a picture: .png, .svg or .pdf.", show_default=False),
]


def schedule(
    names: Annotated[list[str], typer.Argument(metavar="RECIPE|NAME", help="Recipes, or names of schedules.")],
    settings: options.Settings = None,
    picture: Picture = None,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Draw noise schedules side by side.

    Signal and noise, log-SNR and beta over time, and the levels that the recipe's sampler visits.

    Examples:
      diffloom plot schedule linear cosine -o schedules.png
      diffloom plot schedule quickstart --set sampler.steps=10
    """
    from diffloom.cli import curves

    found = [curves.curve(name, settings or ()) for name in names]
    out(curves.described(found))
    if picture is not None:
        from diffloom.cli.drawing import draw_schedules

        draw_schedules(found, picture)
        note(f"wrote {picture}")


def run(
    names: Annotated[list[str], typer.Argument(metavar="RUN|RECIPE", help="Runs' folders, or names in runs/.")],
    figures: Annotated[
        list[str] | None, typer.Option("--figure", metavar="NAME", help="What to draw; repeatable. [default: loss]")
    ] = None,
    picture: Picture = None,
    debug: options.Debug = False,
) -> None:
    """Draw the loss curves of runs.

    Examples:
      diffloom plot run quickstart
      diffloom plot run runs/a runs/b --figure loss --figure gradient_norm -o curves.png
    """
    from diffloom.cli import losses

    found = losses.read(names, figures or ["loss"])
    out(losses.described(found))
    if picture is not None:
        from diffloom.cli.drawing import draw_losses

        draw_losses(found, picture)
        note(f"wrote {picture}")


options.add(app, "schedule", schedule)
options.add(app, "run", run)
