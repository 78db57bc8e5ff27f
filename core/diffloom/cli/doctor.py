"""`doctor`."""

from diffloom.cli import options


def doctor(as_json: options.Json = False, debug: options.Debug = False) -> None:
    """Look whether all is well: the environment, and every installed plugin."""
