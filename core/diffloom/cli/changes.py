"""What may be changed on a finished run: how it samples and how it is judged, never what was trained."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from diffloom.errors import RecipeError

if TYPE_CHECKING:
    from diffloom.engine.run import Run
    from diffloom.recipe.recipe import Recipe

_FREE = ("sampler", "sample", "eval", "precision", "device", "hooks")
_FREE_OF_CONDITIONERS = ("guidance", "start", "end")


def changed(recipe: "Recipe", settings: Sequence[str]) -> "Recipe":
    """Return a run's recipe with settings laid over it.

    Raises:
        RecipeError: Where a setting is wrong, or changes what was trained.
    """
    from diffloom.recipe import lock

    new = _overlaid(recipe, settings)
    trained = [
        line
        for line in lock.differences(recipe.resolved(), new.resolved())
        if not _free(line.partition(":")[0].split("."))
    ]
    if trained:
        raise RecipeError(
            f"this would change what was trained: {'; '.join(trained)}",
            where="--set",
            expected=f"a key below {', '.join(_FREE)}, or guidance, start or end of a conditioner",
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

    from diffloom.recipe.build import conditioning

    system = run.system
    system.plan = replace(
        system.plan,
        conditioning={name: conditioning(config) for name, config in recipe.conditioners.items()},
        precision=getattr(torch, recipe.header.precision),
        sample_batch=recipe.header.sample.batch,
        window=recipe.header.sample.window,
    )
    system.autoencoder.tile = recipe.header.sample.tile
    if recipe.header.device == "cpu":
        system.to("cpu")
    run.recipe = recipe


def ask_about(run: "Run", settings: Sequence[str]) -> None:
    """Let a run's system ask about other data, where nothing else says what to ask for.

    Args:
        run: Whose recipe has the data.
        settings: Keys of `data` to change, `key=value` each.

    Raises:
        RecipeError: Where there are no such data.
    """
    from diffloom.data import Dataset
    from diffloom.system import dataset_prompts

    recipe = _overlaid(run.recipe, [f"data.{text}" for text in settings])
    data = cast(Dataset, recipe.registry.instantiate(recipe.parts["data"], {}))
    system = run.system
    needs = [key for conditioner in system.conditioners.values() for key in conditioner.needs]
    needs += [key for key in system.task.needs if system.task.paired and key in data.holds]
    wants = [key for conditioner in system.conditioners.values() for key in conditioner.wants]
    system.plan = replace(system.plan, prompts=dataset_prompts(data, needs, wants))


def _overlaid(recipe: "Recipe", settings: Sequence[str]) -> "Recipe":
    from diffloom.recipe.recipe import validate
    from diffloom.recipe.source import Source, setting

    source = Source()
    source.merge(recipe.source)
    for text in settings:
        source.merge(setting(text))
    return validate(source, recipe.registry)


def _free(path: Sequence[str]) -> bool:
    return path[0] in _FREE or (path[0] == "conditioners" and path[-1] in _FREE_OF_CONDITIONERS)
