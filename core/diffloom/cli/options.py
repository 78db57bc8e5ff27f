"""The options that several verbs share, and what they mean."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def add(app: typer.Typer, name: str, verb: Callable[..., Any]) -> None:
    """Add a verb; its docstring is its help, of which the paragraph of examples keeps its lines.

    Args:
        app: What to add it to.
        name: The word that calls it.
        verb: A function whose parameters are the verb's.
    """
    paragraphs = inspect.cleandoc(verb.__doc__ or "").split("\n\n")
    shown = [f"\b\n{text}" if text.startswith("Example") else text for text in paragraphs]
    app.command(name, help="\n\n".join(shown), short_help=paragraphs[0].rstrip("."))(verb)


def _load(context: typer.Context, files: list[Path] | None) -> list[Path] | None:
    """Publish the components in Python files for as long as the command runs."""
    if files:
        from diffloom.cli.local import publish

        for file in files:
            for override in publish(file):
                context.call_on_close(override.close)
    return files


def rising(text: str, where: str) -> list[int]:
    """Return the rising whole numbers of a list such as `5,10,20`, two or more.

    Raises:
        DiffloomError: Where it is no such list.
    """
    from diffloom.errors import DiffloomError

    words = [word.strip() for word in text.split(",")]
    found = [int(word) for word in words if word.isdecimal()]
    if len(found) < max(len(words), 2) or sorted(set(found)) != found or found[0] < 1:
        raise DiffloomError("these are no rising numbers", where=where, expected="such as 5,10,20", got=repr(text))
    return found


RecipeFile = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a recipe that comes with diffloom.")
]
Overlays = Annotated[
    list[str] | None,
    typer.Argument(metavar="OVERLAY", help="Recipes laid over it, the last one on top.", show_default=False),
]
Finished = Annotated[
    str,
    typer.Argument(
        metavar="RUN|RECIPE", help="A run's folder, its name in runs/, or the recipe that it was made from."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one value of the recipe, as in train.steps=500; repeatable."
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run's folder. [default: runs/NAME]", show_default=False)
]
Hook = Annotated[
    list[str] | None, typer.Option("--hook", metavar="NAME", help="Let one more hook plugin act; repeatable.")
]
NoHook = Annotated[
    list[str] | None, typer.Option("--no-hook", metavar="NAME", help="Let one hook plugin not act; repeatable.")
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        help="Publish the components in a Python file, for this command; repeatable.",
        callback=_load,
        is_eager=True,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; messages and errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
