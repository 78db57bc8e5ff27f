"""Change a sign or an index at a time, and see that the tests of the mathematics notice.

    python -m tests.mutation                    all mutants
    python -m tests.mutation diffloom_solvers   those whose file has this in its name
    python -m tests.mutation --jobs 2

Each mutant lives in a copy of the tree of its own and in a forked process, in which the tests that should notice run
until the first failure; where none fails, all tests of the mathematics have a go. First the tests must pass in a copy
that nothing was changed in. Ends with 1 if a mutant survives.
"""

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutation.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
TREES = ("core", "registry", "plugins", "tests", "recipes")
PRELOADED = ("torch", "hypothesis", "scipy.integrate", "diffusers", "pydantic", "sklearn", "_pytest.pytester")
WHOLE = ("tests/mathematics", "tests/ddpm")
LIMIT = 1800
_FAILED = int(pytest.ExitCode.TESTS_FAILED)


def main() -> int:
    """Run what is asked for; return how the process ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of file names; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.names or any(name in m.file for name in options.names)]
    wrong = [mutant for mutant in chosen if (ROOT / mutant.file).read_text().count(mutant.old) != 1]
    for mutant in wrong:
        print(f"stale: {mutant.file} does not have once: {mutant.old!r}")  # noqa: T201
    if wrong:
        return 2
    for module in PRELOADED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        tests = tuple(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
        if not _run([Mutant("pyproject.toml", "", "", tests)], Path(folder) / "unchanged", 1):
            print("the tests fail without any change")  # noqa: T201
            return 2
        survived = _run(chosen, Path(folder), options.jobs)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants caught")  # noqa: T201
    return 1 if survived else 0


def _run(chosen: Sequence[Mutant], folder: Path, jobs: int) -> list[Mutant]:
    """Return the mutants that no test noticed; each is told as it ends."""
    waiting, running, survived = list(enumerate(chosen)), dict[int, tuple[Mutant, float]](), list[Mutant]()
    while waiting or running:
        while waiting and len(running) < jobs:
            number, mutant = waiting.pop(0)
            tree = _tree(mutant, folder / str(number))
            child = os.fork()
            if child == 0:
                os._exit(_notice(mutant, tree))
            running[child] = (mutant, time.monotonic())
        child, status = os.wait()
        mutant, started = running.pop(child)
        caught = os.waitstatus_to_exitcode(status) in (_FAILED, -signal.SIGALRM)
        survived += [] if caught else [mutant]
        took = f"{time.monotonic() - started:5.1f} s"
        if mutant.old:
            word = "caught  " if caught else "SURVIVED"
            print(f"{word} {took}  {mutant.file}: {mutant.old!r} → {mutant.new!r}", flush=True)  # noqa: T201
    return survived


def _tree(mutant: Mutant, folder: Path) -> Path:
    """Return a copy of the tree with the change made."""
    for name in TREES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    file = folder / mutant.file
    if mutant.old:
        file.write_text(file.read_text().replace(mutant.old, mutant.new))
    return folder


def _notice(mutant: Mutant, tree: Path) -> int:
    """Return 1 if a test fails in this process, which is a copy made for one mutant."""
    signal.alarm(LIMIT)  # who waits this long for one has noticed it
    os.chdir(tree)
    here = {str(ROOT / name) for name in ("", *TREES)}
    kept = [place for place in sys.path if place.rstrip("/") not in here and place not in ("", str(ROOT))]
    sys.path[:] = [str(tree), *(str(tree / name) for name in ("core", "registry", "plugins")), *kept]
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests",) or name.startswith("diffloom")]:
        del sys.modules[name]
    quiet = ["-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
    only = ["-k", mutant.only] if mutant.only else []
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        code = int(pytest.main([*quiet, *only, *mutant.tests]))
        if code == pytest.ExitCode.OK and mutant.old:
            code = int(pytest.main([*quiet, *WHOLE]))
    return _FAILED if code == pytest.ExitCode.INTERRUPTED else code  # by a module that could not be imported


if __name__ == "__main__":
    sys.exit(main())
