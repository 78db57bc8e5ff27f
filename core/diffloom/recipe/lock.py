"""Lock: a recipe with everything written out, and the version of every component it was made with."""

import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from diffloom.checkpoint import write_text
from diffloom.errors import RecipeError
from diffloom.recipe.migrate import RecipeWarning
from diffloom.recipe.recipe import LOCK, Recipe, load
from diffloom.recipe.source import walk

_HEAD = "# Written by diffloom: this file reruns the run. Change the recipe, not this.\n"


def versions(recipe: Recipe) -> dict[str, str]:
    """Return `name version` of the distribution of every component, by its place in the recipe."""
    return {
        ".".join(map(str, path)): f"{config.kind}/{config.name} from {config.entry.source}"
        for path, config in recipe.configs().items()
    }


def write(recipe: Recipe, file: Path, weights: Mapping[str, str]) -> None:
    """Write the lock file of a recipe, whole or not at all.

    Args:
        recipe: What to write.
        file: Where to.
        weights: Place in the recipe → SHA-256 of the file of weights that was loaded there.
    """
    tree = recipe.resolved() | {
        LOCK: {
            "diffloom": version("diffloom"),
            "python": platform.python_version(),
            "torch": version("torch"),
            "components": versions(recipe),
            "weights": dict(weights),
        }
    }
    text = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(tree, text)
    write_text(file, _HEAD + text.getvalue())


def same(recipe: Recipe, file: Path) -> None:
    """Raise RecipeError, naming every difference, unless a lock file is of this very recipe.

    Both are compared as they are read today: a default that only came with a newer version is no difference.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecipeWarning)  # nobody wrote the lock file by hand
        there = load(file, registry=recipe.registry).resolved()
    changed = differences(there, recipe.resolved())
    if changed:
        raise RecipeError(
            f"the folder {file.parent} holds a run of another recipe, which differs in {'; '.join(changed[:6])}",
            remedy="give this run a folder of its own with --out, or another name; nothing was changed",
        )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return `path: old → new` for every leaf that differs between two trees."""
    old, new = _leaves(there), _leaves(here)
    return [
        f"{path}: {old.get(path, 'absent')} → {new.get(path, 'absent')}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path, "absent") != new.get(path, "absent")
    ]


def drift(recipe: Recipe) -> list[str]:
    """Return what differs between what the lock file that a recipe was read from records, and what is installed now.

    Versions come first, `place: old → new`; then the values that only the versions installed now have.
    """
    recorded = recipe.source.data.get(LOCK)
    if not isinstance(recorded, Mapping):
        return []
    now = {"diffloom": version("diffloom"), "torch": version("torch"), **versions(recipe)}
    was = {"diffloom": recorded.get("diffloom"), "torch": recorded.get("torch"), **(recorded.get("components") or {})}
    changed = [f"{name}: {was[name]} → {now[name]}" for name in was if name in now and was[name] != now[name]]
    old = {key: value for key, value in recipe.source.data.items() if key != LOCK}
    return changed + differences(old, recipe.resolved())


def _leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        ".".join(map(str, path)): value
        for path, value in walk(tree)
        if not isinstance(value, Mapping | list) or not value
    }
