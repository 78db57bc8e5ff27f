"""The verb `export`."""

from pathlib import Path
from typing import Annotated, Any

import diffloom


@diffloom.hook
def diffloom_commands(app: Any) -> None:
    """Add the verb `export`."""
    import typer

    def export(
        run: Annotated[
            str, typer.Argument(metavar="RUN|RECIPE", help="A run's folder, its name in runs/, or its recipe.")
        ],
        folder: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder for diffusers.")],
    ) -> None:
        """Write a run's network, autoencoder and schedule as folders that diffusers loads.

        The averaged weights of the newest checkpoint are taken. What diffusers cannot express is refused, with the
        reason, before anything is written.
        """
        from diffloom.cli.console import note, out
        from diffloom.cli.work import run_of
        from diffloom.engine.run import Run
        from diffloom.errors import DiffloomError

        try:
            from diffloom_diffusers.exporting import export as write
        except ModuleNotFoundError as error:
            raise DiffloomError("export needs diffusers", got=str(error)) from error
        work = Run.of(run_of(run))
        work.load()
        done = write(work.system, folder)
        for name, loader in sorted(done.classes.items()):
            out(f"{done.folder / name}: {loader}")
        for text in done.notes:
            note(text)

    app.command("export")(export)
