"""The verb `hints` among diffloom's others."""

from typing import Any

import diffloom


@diffloom.hook
def diffloom_commands(app: Any) -> None:
    """Add the verb `hints`."""
    from diffloom.cli import options
    from diffloom_hints.verb import hints

    options.add(app, "hints", hints)
