"""What may be changed on a finished run: how it samples and how it is judged, never what was trained."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from diffloom.errors import RecipeError

if TYPE_CHECKING:
    from diffloom.engine.run import Run
    from diffloom.recipe.recipe import Recipe

_FREE = ("sampler", "sample", "eval", "precision", "device", "hooks")


def changed(recipe: "Recipe", settings: Sequence[str]) -> "Recipe":
    """Return a run's recipe with settings laid over it.

    Raises:
        RecipeError: Where a setting is wrong, or changes what was trained.
    """
    from diffloom.recipe import lock
    from diffloom.recipe.recipe import validate
    from diffloom.recipe.source import Source, setting

    source = Source()
    source.merge(recipe.source)
    for text in settings:
        source.merge(setting(text))
    new = validate(source, recipe.registry)
    trained = [
        line
        for line in lock.differences(recipe.resolved(), new.resolved())
        if not _free(line.partition(":")[0].split("."))
    ]
    if trained:
        raise RecipeError(
            f"this would change what was trained: {'; '.join(trained)}",
            where="--set",
            expected=f"a key below {', '.join(_FREE)}, or conditioners.NAME.guidance",
            remedy="train a run of its own with it: diffloom train RECIPE --set …",
        )
    return new


def apply(run: "Run", recipe: "Recipe") -> None:
    """Let a run sample and judge as a changed recipe says; its folder keeps the recipe it was made with.

    Args:
        run: The run, whose system is built if it was not.
        recipe: What `changed` returned.
    """
    import torch

    from diffloom.recipe.settings import ConditionerSettings
    from diffloom.system import Conditioning

    system = run.system
    conditioning = {
        name: Conditioning(drop=config.extras.drop, guidance=config.extras.guidance)
        for name, config in recipe.conditioners.items()
        if isinstance(config.extras, ConditionerSettings)
    }
    system.plan = replace(
        system.plan,
        conditioning=conditioning,
        precision=getattr(torch, recipe.header.precision),
        sample_batch=recipe.header.sample.batch,
        window=recipe.header.sample.window,
    )
    system.autoencoder.tile = recipe.header.sample.tile
    if recipe.header.device == "cpu":
        system.to("cpu")
    run.recipe = recipe


def _free(path: Sequence[str]) -> bool:
    return path[0] in _FREE or (path[0] == "conditioners" and path[-1] == "guidance")
