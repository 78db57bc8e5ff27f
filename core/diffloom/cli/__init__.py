"""The command line: it parses, calls one Python function, and prints.

Data go to stdout, everything else to stderr. Exit codes: 0 all is well, 2 the user's error, 1 ours, 130 interrupted.
No verb imports torch before it runs, so listing and helping are instant.
"""

import os
from collections.abc import Sequence

# Threads that wait for each other sleep rather than spin: on a machine with other work, spinning costs several times
# the time of the work itself. OpenMP reads this when torch is loaded; what the user has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What to do; the process's own arguments by default.

    Returns:
        The exit code.
    """
    from diffloom.cli.app import run

    return run(arguments)


__all__ = ["main"]
