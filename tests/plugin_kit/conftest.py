"""Installed distributions in folders of their own, and processes that see them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

Done = subprocess.CompletedProcess[str]


def distribution(site: Path, name: str, entry_points: str, *, version: str = "1.5", **modules: str) -> None:
    """Write an installed distribution, as an installer would, into a folder.

    Args:
        site: The folder.
        name: Of the distribution.
        entry_points: Text of `entry_points.txt`.
        version: Of the distribution.
        modules: Module → its source.
    """
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)


def python(*arguments: str | Path, sites: Sequence[Path] = (), cwd: Path) -> Done:
    """Run Python in a folder, with the distributions in `sites` installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sites)), "NO_COLOR": "1", "COLUMNS": "120"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**environment, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
    )


def diffloom(*arguments: str | Path, sites: Sequence[Path] = (), cwd: Path) -> Done:
    """Run the command line in a folder, with the distributions in `sites` installed."""
    return python("-m", "diffloom", *arguments, sites=sites, cwd=cwd)


def installed(package: Path, site: Path) -> None:
    """Install a package folder with pip into a folder."""
    options = ("--no-build-isolation", "--no-deps", "--disable-pip-version-check", "--target", site)
    done = python("-m", "pip", "install", "--quiet", *options, package, cwd=package)
    assert done.returncode == 0, done.stderr
