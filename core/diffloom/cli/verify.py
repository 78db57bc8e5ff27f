"""`verify`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffloom.cli import options
from diffloom.cli.console import out, out_json

if TYPE_CHECKING:
    from diffloom.testing.contracts import Case, Outcome

Parts = Annotated[
    list[str], typer.Argument(metavar="KIND/NAME", help="Components, as `diffloom list` names them; or a whole KIND.")
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
      diffloom verify sampler --json
    """
    from diffloom.testing.contracts.running import component_cases

    results: list[dict[str, Any]] = []
    failed = 0
    for kind, name in _chosen(parts):
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


def _chosen(parts: list[str]) -> list[tuple[str, str]]:
    """Return (kind, name) of every component that is asked for."""
    from diffloom.errors import DiffloomError
    from diffloom.kinds import registry
    from diffloom.testing.contracts import CONTRACTS

    found = []
    for part in parts:
        kind, _, name = part.partition("/")
        if kind not in CONTRACTS:
            raise DiffloomError(
                "there is no contract for this",
                where=part,
                expected=f"KIND/NAME with one of the kinds {', '.join(CONTRACTS)}",
                remedy="see `diffloom list`",
            )
        found += [(kind, known) for known in ([name] if name else registry.names(kind))]
    return found


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
