"""The verb `sr`: images of any size and number of bands, enlarged by a trained run or by given weights."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import diffloom
from diffloom.errors import DataError, RecipeError

if TYPE_CHECKING:
    from diffloom.recipe.recipe import Recipe
    from diffloom.system import System
    from diffloom_stablesr.enlarge import OnBlock

TRAINED = "stablesr-x4"


@diffloom.hook
def diffloom_commands(app: Any) -> None:
    """Add the verb `sr`."""
    import typer

    def sr(
        image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture, a GeoTIFF, or a folder of such.")],
        output: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The file, or folder, to write.")],
        by: Annotated[
            str,
            typer.Option("--by", metavar="RUN|RECIPE", help="A trained run, or a recipe of given weights (steps: 0)."),
        ] = TRAINED,
        settings: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="PATH=VALUE", help="Change how it samples, as in sampler.steps=20."),
        ] = None,
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
        of them. A run of three bands sees further ones in threes. Memory is bounded by the block. After an interrupt
        the same command goes on with the next block.
        """
        from diffloom.cli.console import note, out

        enlarger = Enlarger.of(by, settings or ())
        done = [0, 0]

        def tell(name: str, block: int, blocks: int) -> None:
            done[:] = block, blocks
            note(f"{name}: block {block} of {blocks}")

        try:
            for file, target in pairs(image, output):
                done[:] = 0, 0
                told = partial(tell, file.name)
                written = enlarger(file, target, block=block, margin=margin, seed=seed, limits=limits, tell=told)
                out(str(written))
        except KeyboardInterrupt:
            note(f"stopped after block {done[0]} of {done[1]}: nothing is lost. The same command goes on from there.")
            raise typer.Exit(130) from None

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


@dataclass(frozen=True)
class Enlarger:
    """A system that enlarges files.

    Attributes:
        system: With a `time-aware-sft` conditioner.
        model: Names its weights and how it samples.
        sampling: Returns a context within which it samples as it was told to.
    """

    system: "System"
    model: str
    sampling: Callable[[], AbstractContextManager[Any]] = nullcontext

    @classmethod
    def of(cls, name: str, settings: Sequence[str] = ()) -> "Enlarger":
        """Return what a run has learned, or what a recipe of given weights says.

        Args:
            name: A run: its folder, its name in runs/, or its recipe; or a recipe that trains nothing.
            settings: `path.to.key=value` texts; on a trained run only such as change how it samples.

        Raises:
            DiffloomError: There is no such run or recipe, or it cannot enlarge.
        """
        from diffloom.cli.sampling import finished, sampling_as
        from diffloom.cli.work import Behaviour

        given = _given(name, settings)
        if given is not None:
            return cls(given.build(), _digest(given))
        run = finished(name, settings, Behaviour())
        model = f"{run.directory.resolve()}, step {run.step}, {_digest(run.recipe)}"
        return cls(run.system, model, partial(sampling_as, run))

    def __call__(
        self,
        image: Path,
        output: Path,
        *,
        block: int = 128,
        margin: int = 16,
        seed: int = 0,
        limits: tuple[float, float] | None = None,
        tell: "OnBlock | None" = None,
    ) -> Path:
        """Enlarge one file; see `diffloom_stablesr.enlarge`.

        Args:
            image: A picture or a GeoTIFF.
            output: What to write, in a format that its ending says.
            block: Side of a block, in pixels of the image; the next larger one that fits the system's windows is taken.
            margin: Of its surroundings, likewise; at most a block.
            seed: Of the noise.
            limits: Stored numbers that are black and white; the whole range of the type by default.
            tell: Called with how many blocks are done, and how many there are.

        Returns:
            The file that was written.

        Raises:
            DiffloomError: The file cannot be read, or the system cannot enlarge it.
        """
        from diffloom_data.raster import GEO, open_raster
        from diffloom_stablesr.enlarge import Job, enlarge, unit
        from diffloom_stablesr.task import guide_of

        source = open_raster(image, limits)
        if output.suffix.lower() in GEO and not source.profile:
            raise DataError("a picture has no reference for a GeoTIFF", where=str(output), expected="such as .png")
        if not output.resolve().parent.is_dir():
            raise DataError(f"the folder {output.resolve().parent} does not exist", where=str(output), remedy="make it")
        _, guide = guide_of(self.system)
        step = unit(self.system, guide.scale)
        side = -(-block // step) * step
        job = Job(
            source,
            output,
            guide.scale,
            block=side,
            margin=min(-(-margin // step) * step, side),
            seed=seed,
            model=self.model,
            key=guide.key,
            channels=self.system.plan.data_space.channels,
        )
        with self.sampling():
            return enlarge(self.system, job, tell)


def _given(name: str, settings: Sequence[str]) -> "Recipe | None":
    """Return the recipe of a name, where there is one, it trains nothing, and there is no run of it."""
    from diffloom.cli.work import RUNS
    from diffloom.engine.run import LOCK_FILE
    from diffloom.recipe.recipe import find, load

    if any((folder / LOCK_FILE).is_file() for folder in (Path(name), RUNS / name)) or Path(name).is_dir():
        return None
    try:
        find(name)
    except RecipeError:
        return None
    recipe = load(name, settings=settings)
    return None if recipe.header.train.steps else recipe


def _digest(recipe: "Recipe") -> str:
    """Return what names a recipe's answers: all of it but how it is judged and shown."""
    told = {
        key: value for key, value in recipe.resolved().items() if key not in ("name", "description", "eval", "hooks")
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
