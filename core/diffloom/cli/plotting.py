"""`plot`."""

import typer

app = typer.Typer(help="Draw schedules and loss curves.", no_args_is_help=True)
