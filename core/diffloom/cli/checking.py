"""`check`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffloom.cli import options
from diffloom.cli.console import aligned, amount, out, out_json, size

if TYPE_CHECKING:
    from diffloom.recipe.check import Report

Recipes = Annotated[
    list[str], typer.Argument(metavar="RECIPE", help="YAML files, or names of recipes that come with diffloom.")
]
Overlay = Annotated[
    list[str] | None, typer.Option("--overlay", metavar="FILE", help="A recipe laid over each of them; repeatable.")
]


def check(
    recipes: Recipes,
    overlay: Overlay = None,
    settings: options.Settings = None,
    as_json: options.Json = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Check recipes without training them.

    Do their parts exist, are their values right, do they fit together? The system is built without memory and one
    made-up batch goes through it. Every problem gets a line of its own, with file, line and column; then the exit
    code is 2.

    Examples:
      diffloom check recipes/*.yaml
      diffloom check mine.yaml --set denoiser.channels=96 --json
    """
    from diffloom.errors import DiffloomError
    from diffloom.recipe.diagnose import diagnose

    results: list[dict[str, Any]] = []
    for name in recipes:
        try:
            _, report = diagnose(name, *(overlay or ()), settings=settings or ())
        except DiffloomError as error:
            if debug:
                raise
            lines = str(error).splitlines()
            results.append({"recipe": name, "ok": False, "problems": lines})
            if not as_json:
                typer.echo(str(error), err=True)
        else:
            results.append({"recipe": name, "ok": True, **report.as_dict()})
            if not as_json:
                out(("\n" if len(results) > 1 else "") + described(name, report))
    if as_json:
        out_json(results)
    if not all(result["ok"] for result in results):
        raise typer.Exit(2)


def described(name: str, report: "Report") -> str:
    """Return what a check found out, for a person."""
    parameters = [f"{amount(count)} in {role}" for role, count in report.parameters.items()]
    rows = [
        ["parameters", ", ".join(parameters) or "none"],
        ["trained", amount(report.trainable)],
        ["data", f"{report.samples} samples"],
        ["network", f"{amount(report.forward_flops)}FLOPs for one item"],
        ["sampling", f"{report.evaluations} evaluations, {amount(report.sample_flops)}FLOPs for one item"],
    ]
    if report.trainable:
        rows.append(["training", f"{size(report.train_memory)} of memory, estimated"])
    return f"{name}: all parts fit together\n{aligned(rows, indent=2)}"
