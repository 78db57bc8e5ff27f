"""`run` and `train`."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffloom.cli import options
from diffloom.cli.console import first_process, out, table_of_figures

if TYPE_CHECKING:
    from diffloom.engine.run import Run


def run(
    recipe: options.RecipeFile,
    overlay: options.Overlays = None,
    settings: options.Settings = None,
    directory: options.Out = None,
    hook: options.Hook = None,
    no_hook: options.NoHook = None,
    quiet: options.Quiet = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Train a recipe, sample it, evaluate it and report.

    A run that was stopped goes on where it was. Everything is checked before the first step.

    Examples:
      diffloom run quickstart
      diffloom run mine.yaml small.yaml --set train.steps=500 --out runs/try
      diffloom run runs/quickstart/recipe.lock.yaml --out runs/again
    """
    work = _trained(recipe, overlay, settings, directory, (hook, no_hook, quiet))
    if not first_process():
        return
    from diffloom.cli.work import interruptible

    with interruptible(work):
        work.sample()
        figures = work.evaluate() if work.recipe.metrics else {}
    out(str(work.directory))
    for file in sorted(work.directory.glob("*.html")):
        out(str(file))
    if figures:
        out(table_of_figures(figures))


def train(
    recipe: options.RecipeFile,
    overlay: options.Overlays = None,
    settings: options.Settings = None,
    directory: options.Out = None,
    hook: options.Hook = None,
    no_hook: options.NoHook = None,
    quiet: options.Quiet = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Train a recipe.

    A run that was stopped goes on where it was. Everything is checked before the first step.

    Examples:
      diffloom train quickstart
      diffloom train mine.yaml --set train.lr=3e-4 --no-hook tensorboard
      torchrun --nproc_per_node 4 -m diffloom train mine.yaml
    """
    out(str(_trained(recipe, overlay, settings, directory, (hook, no_hook, quiet)).directory))


def _trained(
    recipe: str,
    overlay: list[str] | None,
    settings: list[str] | None,
    directory: Path | None,
    behaviour: tuple[list[str] | None, list[str] | None, bool],
) -> "Run":
    """Return the run of a recipe, checked and then trained to its last step."""
    from diffloom.cli.work import RUNS, Behaviour, interruptible, open_run
    from diffloom.recipe.diagnose import diagnose

    loaded, _ = diagnose(recipe, *(overlay or ()), settings=settings or ())
    work = open_run(loaded, directory or RUNS / loaded.header.name, Behaviour.of(*behaviour).names(loaded))
    with interruptible(work):
        work.train()
    return work
