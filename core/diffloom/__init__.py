"""diffloom weaves diffusion systems out of parts: plugins joined by declarative recipes.

Everything here is imported on first use, so `import diffloom` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffloom.autoencoder import Autoencoder, Posterior
    from diffloom.condition import Affine, Condition, Ports, Tap
    from diffloom.conditioner import Conditioner
    from diffloom.data import Dataset, Transform
    from diffloom.denoiser import Denoiser
    from diffloom.engine.hooks import hook
    from diffloom.engine.run import Run
    from diffloom.errors import DiffloomError
    from diffloom.kinds import registry
    from diffloom.layout import Layout, Weld
    from diffloom.metric import Metric
    from diffloom.noise import Noise
    from diffloom.prediction import Denoised
    from diffloom.recipe.recipe import Recipe, load
    from diffloom.sampler import Grid, Sampler, State
    from diffloom.schedule import Gaussian, Schedule
    from diffloom.space import Space
    from diffloom.system import System
    from diffloom.task import Loss, Objective, Task

_HOMES = {
    "Affine": "condition",
    "Autoencoder": "autoencoder",
    "Condition": "condition",
    "Conditioner": "conditioner",
    "Dataset": "data",
    "Denoised": "prediction",
    "Denoiser": "denoiser",
    "DiffloomError": "errors",
    "Gaussian": "schedule",
    "Grid": "sampler",
    "Layout": "layout",
    "Loss": "task",
    "Metric": "metric",
    "Noise": "noise",
    "Objective": "task",
    "Ports": "condition",
    "Posterior": "autoencoder",
    "Recipe": "recipe.recipe",
    "Run": "engine.run",
    "Sampler": "sampler",
    "Schedule": "schedule",
    "Space": "space",
    "State": "sampler",
    "System": "system",
    "Tap": "condition",
    "Task": "task",
    "Transform": "data",
    "Weld": "layout",
    "hook": "engine.hooks",
    "load": "recipe.recipe",
    "registry": "kinds",
}

__all__ = [
    "Affine",
    "Autoencoder",
    "Condition",
    "Conditioner",
    "Dataset",
    "Denoised",
    "Denoiser",
    "DiffloomError",
    "Gaussian",
    "Grid",
    "Layout",
    "Loss",
    "Metric",
    "Noise",
    "Objective",
    "Ports",
    "Posterior",
    "Recipe",
    "Run",
    "Sampler",
    "Schedule",
    "Space",
    "State",
    "System",
    "Tap",
    "Task",
    "Transform",
    "Weld",
    "build",
    "hook",
    "load",
    "registry",
]


def build(kind: str, name: str, /, **parameters: Any) -> Any:
    """Return a component of any kind, by name: `build("sampler", "ddim", steps=10)`.

    Args:
        kind: Such as schedule, sampler, denoiser; `diffloom list` shows all.
        name: A registered name.
        parameters: What its constructor takes.

    Raises:
        UnknownComponent: Where no such name is installed.
        BrokenPlugin: Where the plugin that publishes it cannot be used.
        ConfigError: Where the parameters are wrong; all problems at once.
    """
    from diffloom.kinds import registry

    return registry.build(kind, name, **parameters)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'diffloom' has no attribute {name!r}")
    return getattr(import_module(f"diffloom.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
