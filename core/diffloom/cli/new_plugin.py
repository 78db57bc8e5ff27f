"""`new-plugin`."""

from pathlib import Path
from typing import Annotated

import typer

from diffloom.cli import options
from diffloom.cli.console import note, out

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the new distribution, as in acme-diffusion.")]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help="Write a component of this kind; repeatable. [default: schedule]"),
]
Into = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the package's folder is made.")]
Everything = Annotated[bool, typer.Option("--all", help="Write a component of every kind.")]


def new_plugin(
    name: Name, kind: Kinds = None, into: Into = Path(), every: Everything = False, debug: options.Debug = False
) -> None:
    """Write a new plugin package.

    A complete one: entry points, a small component of each kind asked for, tests, a recipe, a README and a CI file.
    Install it, and its tests pass. Nothing that exists is overwritten.

    Kinds: schedule, denoiser, autoencoder, conditioner, sampler, task, dataset, transform, metric.

    Examples:
      diffloom new-plugin acme
      diffloom new-plugin acme --kind sampler --kind metric --out ~/projects
    """
    from diffloom.scaffold import PARTS, write

    folder = write(name, list(PARTS) if every else kind or ["schedule"], into)
    out(str(folder))
    note(f"next: cd {folder} && pip install -e '.[test]' && pytest && diffloom check recipe.yaml")
