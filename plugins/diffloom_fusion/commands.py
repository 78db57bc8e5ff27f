"""The verb `fuse`: two files in, one out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import diffloom
from diffloom.errors import DataError, DiffloomError

if TYPE_CHECKING:
    from torch import Tensor

    from diffloom.system import System
    from diffloom_data.modality import Modality

RULES = ("average", "maximum", "laplacian", "guided")
TRAINED = "dif-fusion-stage2"

_PLAIN = "laplacian"
_MODES = {1: "L", 3: "RGB"}


@diffloom.hook
def diffloom_commands(app: Any) -> None:
    """Add the verb `fuse`."""
    import typer

    def fuse(
        infrared: Annotated[Path, typer.Argument(metavar="IR", help="The infrared image, or a second modality.")],
        visible: Annotated[Path, typer.Argument(metavar="VIS", help="The visible image, which gives the colours.")],
        output: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The fused image to write.")],
        by: Annotated[
            str | None,
            typer.Option(
                "--by",
                metavar="RUN|RULE",
                help=f"A trained run, or {', '.join(RULES)}. [default: runs/{TRAINED}, else {_PLAIN}]",
                show_default=False,
            ),
        ] = None,
        seed: Annotated[int, typer.Option("--seed", min=0, help="Of the light noise that features are read at.")] = 0,
    ) -> None:
        """Fuse an infrared and a visible image of one scene, of any size, into one image.

        How they were fused is told.
        """
        from diffloom.cli.console import note, out

        method = by or default_method()
        written = fuse_files(infrared, visible, output, method, seed)
        if by is None and method == _PLAIN:
            note(f"there is no run of {TRAINED}: fused by the rule {_PLAIN}; name another with --by")
        out(f"{written}: fused by {method}")

    app.command("fuse")(fuse)


def default_method() -> str:
    """Return the trained run where there is one, else a rule that needs no training."""
    from diffloom.cli.work import RUNS

    return TRAINED if (RUNS / TRAINED / "checkpoints").is_dir() else _PLAIN


def fuse_files(infrared: Path, visible: Path, output: Path, method: str, seed: int = 0) -> Path:
    """Fuse two files and write the result; nothing is written where something is wrong.

    Args:
        infrared: The second modality.
        visible: The first modality, which gives the colours.
        output: What to write: a picture, or an array (`.npy`) in [−1, 1].
        method: One of `RULES`, or a run of a fusion task: its folder, its name in runs/, or its recipe.
        seed: Of the noise.

    Returns:
        The file that was written.

    Raises:
        DiffloomError: A file cannot be read, the sizes differ, or the method is unknown.
    """
    _writable(output)
    system, names, specs = _by_rule(method) if method in RULES else _by_run(method)
    from diffloom_data.modality import read

    files = (visible, infrared)
    batch = {name: read(file, spec)[None] for name, file, spec in zip(names, files, specs, strict=True)}
    fused = system.predict(batch, seeds=[seed])["image"][0].cpu()
    return _write(fused, output)


def _by_rule(name: str) -> tuple["System", Sequence[str], Sequence["Modality"]]:
    """Return a system that fuses light by a rule, and keeps colours."""
    from diffloom.space import Space
    from diffloom.system import Plan, System
    from diffloom_data.modality import Modality

    space = Space(3, (1, 1))
    system = System(
        Plan(data_space=space),
        autoencoder=diffloom.build("autoencoder", "identity", space=space),
        task=diffloom.build("task", f"fuse-{name}", colour="luma"),
    )
    return system.eval(), ("visible", "infrared"), (Modality(folder=".", channels=3), Modality(folder="."))


def _by_run(name: str) -> tuple["System", Sequence[str], Sequence["Modality"]]:
    """Return the system of a finished run, and how its first two modalities are read."""
    from diffloom.cli.work import run_of
    from diffloom.engine.run import Run
    from diffloom_data.paired import PairedFolder
    from diffloom_fusion.blend import Blend

    work = Run.of(run_of(name), hooks=())
    work.load()
    task, dataset = work.system.task, work.dataset
    if not isinstance(task, Blend) or len(task.modalities) != 2 or not isinstance(dataset, PairedFolder):
        raise DiffloomError(
            "this run does not fuse two files",
            where=str(work.directory),
            expected="a fusion task over two modalities of a `paired-folder`",
            got=f"the task {type(task).__name__}",
            remedy=f"name another run, or one of {', '.join(RULES)}",
        )
    return work.system, task.modalities, [dataset.specs[key] for key in task.modalities]


def _writable(output: Path) -> None:
    """Refuse an ending that says no format, or a folder that is not there."""
    from PIL import Image

    if output.suffix.lower() not in (*Image.registered_extensions(), ".npy"):
        raise DataError(
            "the ending says no format that can be written",
            where=str(output),
            expected="such as .png, .tif or .npy",
            got=repr(output.suffix),
        )
    if not output.resolve().parent.is_dir():
        raise DataError(f"the folder {output.resolve().parent} does not exist", where=str(output), remedy="make it")


def _write(image: "Tensor", output: Path) -> Path:
    """Write an image (C, H, W) in [−1, 1]."""
    import numpy as np
    from PIL import Image

    if output.suffix.lower() == ".npy":
        np.save(output, image.numpy())
        return output
    if len(image) not in _MODES:
        raise DataError(
            f"{len(image)} channels make no picture", where=str(output), remedy="write an array: end in .npy"
        )
    pixels = ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels).save(output)
    return output
