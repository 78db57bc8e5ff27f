"""A stand-in for a run: what hook plugins of this package look at, and no more."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from diffloom.engine import hooks as specs
from diffloom.engine.run import Run
from diffloom.recipe.settings import SampleSettings
from diffloom_registry.hooks import Hooks


@dataclass
class StandIn:
    """A run's folder, step, data set and settings."""

    directory: Path
    step: int = 0
    classes: tuple[str, ...] = ()
    columns: int | None = None
    rgb_bands: tuple[int, ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> SimpleNamespace:
        bands = {} if self.rgb_bands is None else {"rgb_bands": self.rgb_bands}
        return SimpleNamespace(classes=self.classes, **bands)

    @property
    def recipe(self) -> SimpleNamespace:
        return SimpleNamespace(header=SimpleNamespace(sample=SampleSettings(columns=self.columns)))


def stand_in(directory: Path, **changes: Any) -> Run:
    """Return a stand-in under the type that hooks expect."""
    return cast(Run, StandIn(directory, **changes))


def hooks(*names: str) -> Hooks:
    """Return hooks with the named plugins, found where every run finds them; none may be broken."""
    made = Hooks(project="diffloom", specs=specs, group="diffloom.hooks")
    assert made.enable(names) == []
    return made
