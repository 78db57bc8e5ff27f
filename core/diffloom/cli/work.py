"""From what the command line says to a recipe or a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy
import typer

from diffloom.cli.console import note
from diffloom.errors import RecipeError, UnknownComponent

if TYPE_CHECKING:
    from diffloom.engine.run import Run
    from diffloom.recipe.recipe import Recipe

RUNS = Path("runs")
_QUIET = ("progress",)
_hook = pluggy.HookimplMarker("diffloom")


@dataclass(frozen=True)
class Behaviour:
    """Which hook plugins act.

    Attributes:
        more: Names beside the recipe's.
        without: Names that do not act.
        quiet: Whether progress is not shown.
    """

    more: Sequence[str] = ()
    without: Sequence[str] = ()
    quiet: bool = False

    @classmethod
    def of(cls, more: Sequence[str] | None, without: Sequence[str] | None, quiet: bool) -> "Behaviour":
        """Return the behaviour that the options ask for."""
        return cls(tuple(more or ()), tuple(without or ()), quiet)

    def names(self, recipe: "Recipe") -> list[str]:
        """Return the names of the plugins that act on a recipe; UnknownComponent where one is misspelt."""
        from diffloom.engine import hooks as specs
        from diffloom_registry.hooks import Hooks

        wanted = [*recipe.header.hooks, *self.more]
        known = {entry.name for entry in Hooks("diffloom", specs).available()} | set(wanted)
        for name in self.without:
            if name not in known:
                raise UnknownComponent("hook plugin", name, installed=known)
        without = {*self.without, *(_QUIET if self.quiet else ())}
        return [name for name in dict.fromkeys(wanted) if name not in without]


class Messages:
    """Prints a run's messages where no progress bar does it."""

    @_hook
    def diffloom_message(self, text: str) -> None:
        """Print the message."""
        note(text)


def open_run(recipe: "Recipe", directory: Path, names: Sequence[str]) -> "Run":
    """Return the run of a recipe in a folder, and tell which of its hook plugins cannot act.

    Args:
        recipe: What the run is of.
        directory: Where it is.
        names: The hook plugins.
    """
    from diffloom.engine.run import Run

    plugins = {} if "progress" in names else {"messages": Messages()}
    run = Run(recipe, directory, hooks=names, plugins=plugins)
    for broken in run.hooks.quarantined:
        note(f"the run goes on without a hook plugin: {broken.error}")
    return run


def run_of(text: str) -> Path:
    """Return the folder of the run that is meant: a folder, a name in `runs/`, or a recipe's name or file.

    Raises:
        RecipeError: Where there is none.
    """
    from diffloom.engine.run import LOCK_FILE
    from diffloom.recipe.lock import differences
    from diffloom.recipe.recipe import load

    for folder in (Path(text), RUNS / text):
        if (folder / LOCK_FILE).is_file():
            return folder
    if Path(text).name == LOCK_FILE and Path(text).is_file():
        return Path(text).parent
    known = sorted(file.parent.name for file in RUNS.glob(f"*/{LOCK_FILE}"))
    if Path(text).is_dir() or not (Path(text).suffix in (".yaml", ".yml") or _is_recipe(text)):
        raise RecipeError(
            f"there is no run {text}",
            expected=f"a run's folder, one of the runs {', '.join(known)}, or a recipe" if known else "a run's folder",
            remedy="train a recipe first: diffloom train RECIPE",
        )
    recipe = load(text)
    folder = RUNS / recipe.header.name
    if not (folder / LOCK_FILE).is_file():
        raise RecipeError(
            f"the recipe {text} has no run in {folder}",
            remedy=f"train it first: diffloom train {text}; or name the run's folder",
        )
    changed = differences(load(folder / LOCK_FILE).resolved(), recipe.resolved())
    if changed:
        note(f"{folder} is used as it was made, though {text} has changed since: {'; '.join(changed)}")
    return folder


@contextmanager
def interruptible(run: "Run") -> Iterator[None]:
    """Within the context an interrupt is told with the step that was reached, and ends with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        step, steps = run.step, run.recipe.header.train.steps
        note(
            f"stopped at step {step} of {steps}: nothing is lost. "
            f"The same command goes on from there, in {run.directory}."
        )
        raise typer.Exit(130) from None


def _is_recipe(text: str) -> bool:
    from diffloom.recipe.recipe import find

    try:
        find(text)
    except RecipeError:
        return False
    return True
