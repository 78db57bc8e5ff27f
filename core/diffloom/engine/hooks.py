"""Hooks: what happens around a run, as opposed to the parts that it is made of.

A plugin publishes an object with any of these functions under the entry-point group `diffloom.hooks`. A recipe names
the ones it wants under `hooks`; without that key the built-in ones act. Two alone are called for every installed
plugin: `diffloom_commands`, since a new verb acts on nothing, and `diffloom_migrate`, without which an old recipe could
not be read. Both must stand in the module that the entry point names.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from diffloom.engine.run import Run
    from diffloom.recipe.migrate import OldRecipe

spec = pluggy.HookspecMarker("diffloom")
hook = pluggy.HookimplMarker("diffloom")


@spec
def diffloom_run_started(run: "Run") -> None:
    """Called once, before the first step; `run.step` is where it starts or goes on."""


@spec
def diffloom_step(run: "Run", step: int, record: dict[str, float]) -> None:
    """Called after every `train.log_every`-th step with its figures: losses, rate, gradient norm."""


@spec
def diffloom_progress(run: "Run", stage: str, done: int, total: int) -> None:
    """Called as work goes on: `stage` is train, sample or evaluate; `done` of `total` units are finished."""


@spec
def diffloom_sampled(run: "Run", step: int, outputs: dict[str, Any]) -> None:
    """Called with new samples: `image` (N, C, H, W) in [−1, 1], `seeds`, `batch`, and `trajectory` where recorded."""


@spec
def diffloom_checkpoint(run: "Run", step: int, path: Path) -> None:
    """Called after a checkpoint was written to `path`."""


@spec
def diffloom_evaluated(run: "Run", figures: dict[str, dict[str, float]]) -> None:
    """Called with the figures of an evaluation: sampler → metric → value."""


@spec
def diffloom_message(run: "Run", text: str) -> None:
    """Called with something that the user should read: a damaged checkpoint, a finding of the audit."""


@spec
def diffloom_run_finished(run: "Run") -> None:
    """Called once at the end, also when the run was interrupted."""


@spec
def diffloom_commands(app: Any) -> None:
    """Called when the command line starts; `app` is the typer application to add verbs to."""


@spec
def diffloom_migrate(recipe: "OldRecipe") -> None:
    """Called when a recipe was read, before it is checked: turns old keys of the plugin's components into new ones."""
