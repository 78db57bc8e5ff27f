"""`plot schedule`, `plot sampler` and `plot run`."""

from pathlib import Path
from typing import Annotated

import typer

from diffloom.cli import options
from diffloom.cli.console import note, out, out_json

app = typer.Typer(
    help="Draw schedules, how samplers converge, and the loss curves of runs.",
    short_help="Draw schedules, samplers and loss curves",
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


def sampler(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE|NAME]", help="Recipes, or names of samplers. [default: all]"),
    ] = None,
    steps: Annotated[
        str, typer.Option("--steps", metavar="N,N,…", help="Numbers of steps, rising.")
    ] = "5,10,20,40,80,160",
    settings: options.Settings = None,
    picture: Picture = None,
    as_json: options.Json = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Measure how fast samplers converge.

    The error against Gaussian data, whose probability flow is known exactly, over the number of evaluations, and the
    order that it shows as steps double. All run on levels evenly spaced in log-SNR down to level 0, a name on a
    schedule that explodes the variance and a recipe on its own. Of a sampler that draws noise it is the error of the
    mean and standard deviation.

    Examples:
      diffloom plot sampler ddim heun unipc -o orders.png
      diffloom plot sampler quickstart --set sampler.eta=1 --steps 10,100
    """
    from diffloom.cli import orders
    from diffloom.kinds import registry

    counts = options.rising(steps, "--steps")
    found = [orders.converge(name, counts, settings or ()) for name in names or registry.names("sampler")]
    if as_json:
        out_json([each.as_dict() for each in found])
    else:
        out(orders.described(found))
    if picture is not None:
        from diffloom.cli.drawing import draw_orders

        draw_orders(found, picture)
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
options.add(app, "sampler", sampler)
options.add(app, "run", run)
