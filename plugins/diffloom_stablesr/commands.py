"""The verb `sr`: images of any size and number of bands, enlarged by a trained run."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import diffloom
from diffloom.errors import DataError

if TYPE_CHECKING:
    from diffloom.engine.run import Run

TRAINED = "stablesr-x4"


@diffloom.hook
def diffloom_commands(app: Any) -> None:
    """Add the verb `sr`."""
    import typer

    def sr(
        image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture, a GeoTIFF, or a folder of such.")],
        output: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The file, or folder, to write.")],
        by: Annotated[str, typer.Option("--by", metavar="RUN", help="A trained run of a stablesr task.")] = TRAINED,
        block: Annotated[
            int, typer.Option("--block", min=8, help="Side of the blocks that are made at a time, in given pixels.")
        ] = 128,
        margin: Annotated[int, typer.Option("--margin", min=0, help="Surroundings that each block sees.")] = 16,
        seed: Annotated[int, typer.Option("--seed", min=0, help="Of the noise.")] = 0,
        limits: Annotated[
            tuple[float, float] | None,
            typer.Option("--range", metavar="LOW HIGH", help="Numbers that are black and white. [default: the type's]"),
        ] = None,
    ) -> None:
        """Enlarge images of any size and number of bands by a trained run.

        A GeoTIFF stays one, with its bands and its reference; pixels become as many times smaller as there are more
        of them. Memory is bounded by the block. After an interrupt the same command goes on with the next block.
        """
        from diffloom.cli.console import note, out

        for file, target in pairs(image, output):
            told = f"{file.name}: block {{}} of {{}}"
            written = enlarge_file(
                file,
                target,
                by,
                block=block,
                margin=margin,
                seed=seed,
                limits=limits,
                tell=lambda done, total, told=told: note(told.format(done, total)),
            )
            out(str(written))

    app.command("sr")(sr)


def pairs(image: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    """Yield (file, what to write) for a file, or for every image of a folder.

    Raises:
        DataError: There is no such file, or no image in the folder.
    """
    from diffloom_data.images import SUFFIXES

    if not image.is_dir():
        yield image, output
        return
    found = sorted(file for file in image.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError("there are no images in this folder", where=str(image))
    output.mkdir(parents=True, exist_ok=True)
    for file in found:
        yield file, output / file.name


def enlarge_file(
    image: Path,
    output: Path,
    name: str,
    *,
    block: int = 128,
    margin: int = 16,
    seed: int = 0,
    limits: tuple[float, float] | None = None,
    tell: Any = None,
) -> Path:
    """Enlarge one file by a trained run; see `diffloom_stablesr.enlarge`.

    Args:
        image: A picture or a GeoTIFF.
        output: What to write, in a format that its ending says.
        name: The run: its folder, its name in runs/, or its recipe.
        block: Side of a block, in pixels of the image.
        margin: Of its surroundings.
        seed: Of the noise.
        limits: Stored numbers that are black and white; the whole range of the type by default.
        tell: Called with how many blocks are done, and how many there are.

    Returns:
        The file that was written.

    Raises:
        DiffloomError: The file cannot be read, or the run cannot enlarge it.
    """
    from diffloom_data.raster import GEO, open_raster
    from diffloom_stablesr.enlarge import Job, enlarge
    from diffloom_stablesr.task import guide_of

    source = open_raster(image, limits)
    if output.suffix.lower() in GEO and not source.profile:
        raise DataError("a picture has no reference for a GeoTIFF", where=str(output), expected="such as .png")
    if not output.resolve().parent.is_dir():
        raise DataError(f"the folder {output.resolve().parent} does not exist", where=str(output), remedy="make it")
    run = _trained(name)
    _, guide = guide_of(run.system)
    model = f"{run.directory.resolve()}, step {run.step}"
    job = Job(source, output, guide.scale, block, margin, seed, model, guide.key)
    return enlarge(run.system, job, tell)


def _trained(name: str) -> "Run":
    from diffloom.cli.work import run_of
    from diffloom.engine.run import Run

    run = Run.of(run_of(name), hooks=())
    run.load()
    return run
