"""Report: one page that shows a run, made again whenever there is something new to see.

The page is a function of the files in the run's folder alone, so `write_report` makes it for any run at any time,
also for one that was killed, or that was made on another machine.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from diffloom.engine.hooks import hook

if TYPE_CHECKING:
    from diffloom.engine.run import Run

REPORT = "report.html"


class Report:
    """Writes the report; last among the plugins, so that what the others write is in it."""

    @hook(trylast=True)
    def diffloom_run_started(self, run: "Run") -> None:
        """Write down the machine and the parts, then the report."""
        self._write(run, anew=True)

    @hook(trylast=True)
    def diffloom_sampled(self, run: "Run", step: int, outputs: dict[str, Any]) -> None:
        """Write the report."""
        self._write(run)

    @hook(trylast=True)
    def diffloom_checkpoint(self, run: "Run", step: int, path: Path) -> None:
        """Write the report."""
        self._write(run)

    @hook(trylast=True)
    def diffloom_evaluated(self, run: "Run", figures: dict[str, dict[str, float]]) -> None:
        """Write the report."""
        self._write(run)

    @hook(trylast=True)
    def diffloom_run_finished(self, run: "Run") -> None:
        """Write the report."""
        self._write(run)

    def _write(self, run: "Run", *, anew: bool = False) -> None:
        from diffloom_report import files
        from diffloom_report.about import write_about

        if anew or not (run.directory / files.ABOUT).is_file():
            write_about(run)
        write_report(run.directory)

    @hook
    def diffloom_commands(self, app: Any) -> None:
        """Add the verb `report`."""
        import typer

        def report(
            run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name in runs/.")],
        ) -> None:
            """Write a run's report.html anew, from the files in its folder."""
            typer.echo(write_report(_folder(run)))

        app.command("report")(report)


def write_report(directory: Path) -> Path:
    """Write `report.html` into a run's folder, whole or not at all.

    Args:
        directory: The folder of a run, however far it came.

    Returns:
        The page.

    Raises:
        RecipeError: Where the folder holds no run.
    """
    from diffloom_report import files
    from diffloom_report.contents import Contents
    from diffloom_report.page import page

    file = directory / REPORT
    files.replace(file, page(Contents.of(directory)))
    return file


def _folder(run: str) -> Path:
    from diffloom_report.contents import LOCK_FILE

    named = Path("runs") / run
    return named if (named / LOCK_FILE).is_file() and not (Path(run) / LOCK_FILE).is_file() else Path(run)
