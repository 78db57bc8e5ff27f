"""`verify`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffloom.cli import options
from diffloom.cli.console import out, out_json

if TYPE_CHECKING:
    from diffloom.testing.contracts import Case, Outcome

Parts = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND/NAME", help="Components, as `diffloom list` names them; a whole KIND; or a package's name."
    ),
]


def verify(
    parts: Parts,
    as_json: options.Json = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Test components against the laws of their interfaces.

    Every law is a line of its own. Where one is broken the reason follows, with the smallest example that breaks it;
    then the exit code is 2. Laws that a component declares nothing about are said to be not applicable.

    Examples:
      diffloom verify sampler/ddim
      diffloom verify schedule/mine sampler/mine --plugin mine.py
      diffloom verify my-package
      diffloom verify sampler --json
    """
    from diffloom.testing.contracts.running import chosen, component_cases

    results: list[dict[str, Any]] = []
    failed = 0
    for kind, name in chosen(parts):
        for case in component_cases(kind, name):
            outcome = case.run()
            failed += outcome.status == "failed"
            results.append({"component": _title(case), **vars(outcome), "law": case.check.law})
            if not as_json:
                out(_described(case, outcome))
    if as_json:
        out_json({"ok": not failed, "checks": results})
    elif failed:
        typer.echo(f"{failed} of {len(results)} checks failed", err=True)
    if failed:
        raise typer.Exit(2)


def _title(case: "Case") -> str:
    number = f"[{case.example}]" if case.example else ""
    return f"{case.kind}/{case.name}{number}"


def _described(case: "Case", outcome: "Outcome") -> str:
    """Return a line that says what became of a check, and under a failure why and with which example."""
    line = f"{outcome.status:<16}  {_title(case)}  {outcome.check}"
    if outcome.status == "failed":
        line += f"\n    {outcome.message}"
        line += f"\n    smallest example: {outcome.example}" if outcome.example else ""
    elif outcome.message:
        line += f": {outcome.message}"
    return line
