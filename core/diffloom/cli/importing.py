"""`import`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffloom.cli import options
from diffloom.cli.console import aligned, amount, note, out

if TYPE_CHECKING:
    from diffloom.recipe.importing import Result

Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOURCE", help="A file of weights (safetensors, or an old pickle), a model's folder, or a pipeline's."
    ),
]
For = Annotated[
    str | None,
    typer.Option("--recipe", metavar="RECIPE", help="Whose parts the weights are for.", show_default=False),
]
Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the converted weights are written.")]
Average = Annotated[
    bool, typer.Option("--average", help="Of a single-file checkpoint, take the averaged (EMA) network.")
]


def import_(
    sources: Sources,
    folder: Folder,
    recipe: For = None,
    average: Average = False,
    settings: options.Settings = None,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Take over weights from other libraries.

    With a recipe, every part that knows the layout of the files gets its weights: all keys and shapes are compared
    first, then DIR/ROLE.safetensors is written for each, and DIR/weights.yaml, to be laid over the recipe. Without
    one, old pickles become safetensors with the same keys. Of a pickle only tensors are read; it never runs code.

    Examples:
      diffloom import stable-diffusion-v1-5 --recipe sd15 --out sd15
      diffloom import v1-5-pruned.ckpt --average --recipe sd15 --out sd15
      diffloom import old.pth --out .
    """
    from diffloom.errors import CheckpointError
    from diffloom.recipe.importing import convert, import_weights
    from diffloom.stored import PICKLES

    if recipe is None:
        for source in sources:
            if source.suffix not in PICKLES:
                raise CheckpointError(
                    "without a recipe there is nothing to convert this to",
                    where=str(source),
                    expected=f"a pickle: {', '.join(sorted(PICKLES))}",
                    remedy="add --recipe RECIPE, whose parts the weights are for",
                )
            file, count = convert(source, folder)
            out(f"{file}: {count} tensors")
        return
    from diffloom.recipe.recipe import load

    result = import_weights(sources, load(recipe, settings=settings or ()), folder, average=average)
    out(described(result))
    note(f"lay it over the recipe: diffloom run {recipe} {result.overlay}")


def described(result: "Result") -> str:
    """Return what an import did, for a person."""
    rows = [["part", "from", "layout", "tensors", "parameters", "written"]]
    for each in result.imported:
        figures = [str(each.tensors), amount(each.parameters)]
        rows.append([each.role, str(each.source), each.layout, *figures, str(each.file)])
    lines = [aligned(rows)]
    for each in result.imported:
        if each.left:
            lines.append(f"{each.role}: {each.left} other tensors of {each.source.name} are not this part's")
        lines += [f"{each.role}: {doubt}; make sure that this is meant" for doubt in each.doubts]
    lines += [f"{role}: nothing in these files; it keeps its own weights" for role in result.absent]
    lines += [f"{path}: no part of the recipe took it" for path in result.unused]
    return "\n".join(lines)
