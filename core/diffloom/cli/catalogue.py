"""`list`, `show` and `schema`: what is installed, and what it takes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffloom.cli import options
from diffloom.cli.console import aligned, note, out, out_json

if TYPE_CHECKING:
    from diffloom_registry import Entry

KindName = Annotated[
    str | None,
    typer.Argument(
        metavar="KIND", help="Only this kind, as in sampler; `hooks` and `recipes` are kinds too.", show_default=False
    ),
]


def listing(
    kind: KindName = None, as_json: options.Json = False, plugin: options.Plugin = None, debug: options.Debug = False
) -> None:
    """List what is installed.

    Every component by kind and name, with the package that it comes from. Nothing is imported, so a broken plugin
    is listed like any other: `diffloom doctor` finds it.

    Examples:
      diffloom list
      diffloom list sampler
      diffloom list recipes
      diffloom list --json
    """
    if kind == "recipes":
        _recipes(as_json)
        return
    entries = _entries(kind)
    if as_json:
        out_json([_record(entry) for entry in entries])
        return
    from diffloom.kinds import registry

    summaries = {name: known.summary for name, known in registry.kinds.items()}
    for name in dict.fromkeys(entry.kind for entry in entries):
        own = [entry for entry in entries if entry.kind == name]
        out(f"{name}  {summaries.get(name, 'behaviour that acts around a run')}")
        out(aligned([[entry.name, entry.source] for entry in own], indent=2))
    if not entries:
        note(f"no {kind} is installed" if kind else "nothing is installed")


def show(
    name: Annotated[
        str, typer.Argument(metavar="KIND/NAME", help="As in sampler/ddim; the name alone where it is one of a kind.")
    ],
    as_json: options.Json = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Show a component and its parameters.

    What it is, where it comes from, what it takes and what it declares.

    Examples:
      diffloom show sampler/ddim
      diffloom show unet --json
    """
    from diffloom.cli.showing import described, facts

    found = facts(name)
    if as_json:
        out_json(found)
    else:
        out(described(found))


def schema(
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there rather than to stdout.")
    ] = None,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Print the JSON Schema of recipes.

    It is made of all that is installed; editors complete and check recipes by it.

    Example, for a recipe that begins with `# yaml-language-server: $schema=recipe.schema.json`:
      diffloom schema -o recipe.schema.json
    """
    from diffloom.recipe.schema import recipe_schema

    found = recipe_schema()
    if file is None:
        out_json(found)
        return
    from diffloom.checkpoint import write_json

    write_json(file, found)
    note(f"wrote {file}")


def _entries(kind: str | None) -> "list[Entry]":
    """Return what is published, of all kinds or of one, without importing any of it."""
    from diffloom.kinds import registry
    from diffloom_registry.discovery import discover

    hooks = discover({"diffloom.hooks": "hooks"}).entries if kind in (None, "hooks") else []
    hooks.sort(key=lambda entry: entry.name)
    return [*([] if kind == "hooks" else registry.entries(kind)), *hooks]


def _recipes(as_json: bool) -> None:
    from diffloom.recipe.recipe import shipped
    from diffloom.recipe.source import read

    found = {name: str(read(file).data.get("description", "")) for name, file in shipped().items()}
    if as_json:
        out_json([{"kind": "recipes", "name": name, "description": text} for name, text in found.items()])
    else:
        out(aligned([[name, text] for name, text in found.items()]))


def _record(entry: "Entry") -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "value": entry.value,
    }
