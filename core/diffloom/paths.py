"""Paths as recipes write them: with `~` and environment variables, so that they hold on any machine."""

import os
import re
from pathlib import Path

from diffloom.errors import DataError

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def expand(path: str, *, where: str) -> Path:
    """Return `path` with `~`, `$NAME` and `${NAME}` replaced.

    Args:
        path: As the recipe says it.
        where: Who asks, for the error.

    Raises:
        DataError: A variable is not set.
    """
    names = [braced or plain for braced, plain in _VARIABLE.findall(path)]
    unset = [name for name in names if not os.environ.get(name)]
    if unset:
        raise DataError(
            f"the environment variable {unset[0]} is not set",
            where=where,
            got=f"the path {path}",
            remedy=f"set it: export {unset[0]}=/the/path",
        )
    return Path(os.path.expandvars(path)).expanduser()


def existing_folder(path: str, *, where: str) -> Path:
    """Return the folder `path`, expanded; DataError where it does not exist or is no folder."""
    folder = expand(path, where=where)
    if not folder.is_dir():
        raise _missing(folder, "folder", path, where)
    return folder


def existing_file(path: str, *, where: str) -> Path:
    """Return the file `path`, expanded; DataError where it does not exist or is no file."""
    file = expand(path, where=where)
    if not file.is_file():
        raise _missing(file, "file", path, where)
    return file


def _missing(found: Path, kind: str, path: str, where: str) -> DataError:
    state = f"is no {kind}" if found.exists() else "does not exist"
    said = "" if str(found) == path else f", written as {path}"
    return DataError(
        f"the {kind} {found}{said} {state}",
        where=where,
        remedy=f"give the path of a {kind}; a relative one starts at {Path.cwd()}",
    )
