"""The application: its verbs, and what becomes of errors."""

import errno
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from diffloom.blame import blamed
from diffloom.cli.catalogue import listing, schema, show
from diffloom.cli.checking import check
from diffloom.cli.console import note
from diffloom.cli.doctor import doctor
from diffloom.cli.evaluating import evaluate
from diffloom.cli.importing import import_
from diffloom.cli.new_plugin import new_plugin
from diffloom.cli.options import add
from diffloom.cli.plotting import app as plot
from diffloom.cli.sampling import sample
from diffloom.cli.training import run as run_all
from diffloom.cli.training import train
from diffloom.cli.verify import verify
from diffloom_registry.errors import DiffloomError

HELP = """Diffusion systems woven out of parts.

A recipe is a YAML file that names one part for each role. `run` trains it, samples it, evaluates it and reports.

\b
  diffloom run quickstart                       a recipe that comes with diffloom
  diffloom run mine.yaml --set train.steps=500  yours, with one value changed
  diffloom list sampler                         which samplers are installed
  diffloom show sampler/ddim                    what one of them takes
"""

_USERS = {errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EROFS}
_STOPPED = "stopped: nothing that was written is lost, and the same command goes on from there"


class Verbs(TyperGroup):
    """The verbs: ours, and those that installed plugins add. A plugin is imported for a verb that is not ours."""

    _added: Mapping[str, Any] = MappingProxyType({})

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all verbs, ours first."""
        from diffloom.cli.plugins import verbs

        self._added = verbs(self.commands, note, every=False)
        return [*self.commands, *self._added]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb, or nothing where nobody has it."""
        for known in (self.commands, self._added):
            if cmd_name in known:
                return known[cmd_name]
        from diffloom.cli.plugins import verbs

        return verbs(self.commands, note, every=True).get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; an interrupt becomes a message and exit code 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            note(_STOPPED)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="diffloom",
    cls=Verbs,
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"diffloom {version('diffloom')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


add(app, "run", run_all)
add(app, "train", train)
add(app, "sample", sample)
add(app, "eval", evaluate)
add(app, "check", check)
add(app, "import", import_)
add(app, "list", listing)
add(app, "show", show)
add(app, "schema", schema)
app.add_typer(plot, name="plot")
add(app, "verify", verify)
add(app, "doctor", doctor)
add(app, "new-plugin", new_plugin)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; errors are printed, never raised."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given, prog_name="diffloom")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:  # noqa: BLE001  the last one to see it: it becomes a message and an exit code
        if "--debug" in given:
            traceback.print_exception(error)
        return _report(error)
    return 0


def _report(error: Exception) -> int:
    """Print an error; return 2 where the user can mend it, 1 where we must."""
    if isinstance(error, DiffloomError):
        typer.echo(str(error), err=True)
        for remark in getattr(error, "__notes__", ()):
            typer.echo(remark, err=True)
        return 2
    if isinstance(error, OSError) and error.filename is not None and error.errno in _USERS:
        typer.echo(f"{error.filename}: {error.strerror}", err=True)
        return 2
    said = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    component = blamed(error)
    failed = f"it failed in {component}" if component else "diffloom failed, which is not your fault"
    typer.echo(f"{failed}: {reason}", err=True)
    typer.echo("the same command with --debug shows where; nothing that was written is lost", err=True)
    return 1
