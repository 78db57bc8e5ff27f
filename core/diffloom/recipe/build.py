"""Build: from a recipe to a system. Parts are built in the order in which they need each other.

data → (its space) → autoencoder → (the latents' space) → schedule → denoiser → conditioners → sampler → task.
Whoever is annotated with an interface or with `Space` gets the part that stands before it.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from diffloom.autoencoder import Autoencoder, require_scaled
from diffloom.conditioner import Conditioner
from diffloom.data import Dataset
from diffloom.denoiser import Denoiser
from diffloom.errors import ConfigError, DiffloomError, RecipeError
from diffloom.recipe.recipe import Recipe
from diffloom.recipe.settings import ConditionerSettings, DenoiserSettings, ModuleSettings
from diffloom.recipe.weights import Weights
from diffloom.sampler import Sampler
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.system import Conditioning, Plan, System, dataset_prompts, latent_space
from diffloom.task import Task
from diffloom_registry import Config


@dataclass
class Built:
    """What a recipe became.

    Attributes:
        system: The parts, joined.
        dataset: The training data.
        weights: Role → SHA-256 of the file of weights that was loaded.
    """

    system: System
    dataset: Dataset
    weights: Mapping[str, str] = field(default_factory=dict)


def build(recipe: Recipe, *, device: str | None = None, meta: bool = False, runs: Path = Path("runs")) -> Built:
    """Return the system and data of a recipe.

    Args:
        recipe: What to build.
        device: Where to put the weights; the recipe's choice by default.
        meta: Build on the meta device: shapes without memory, no weights read.
        runs: Where `weights: run:NAME` looks.

    Raises:
        RecipeError: Where a part refuses its values or does not fit, with its place in the recipe.
    """
    builder = _Builder(recipe, Weights(runs, pretend=meta), meta)
    built = builder.run()
    if not meta:
        built.system.to(_device(device or recipe.header.device), memory_format=torch.channels_last)  # type: ignore[call-overload]
        built.system.eval()
    return built


class _Builder:
    def __init__(self, recipe: Recipe, weights: Weights, meta: bool) -> None:
        self.recipe = recipe
        self.weights = weights
        self.meta = meta
        self.parts: dict[type, object] = {}

    def run(self) -> Built:
        torch.manual_seed(self.recipe.header.seed)
        dataset = cast(Dataset, self._make("data"))
        self.parts[Dataset] = dataset
        self.parts[Space] = dataset.space
        autoencoder = cast(Autoencoder, self._make("autoencoder"))
        autoencoder.tile = self.recipe.header.sample.tile
        self.parts[Autoencoder] = autoencoder
        self.parts[Space] = self._fitting("autoencoder", lambda: latent_space(autoencoder, dataset.space))
        if not self.meta and self.recipe.part("denoiser") is not None:
            self._fitting("autoencoder", lambda: require_scaled(autoencoder))
        schedule, denoiser = self._optional("schedule", Schedule), self._optional("denoiser", Denoiser)
        conditioners = {
            name: cast(Conditioner, self._construct(config, f"conditioners.{name}"))
            for name, config in self.recipe.conditioners.items()
        }
        sampler = self._optional("sampler", Sampler)
        task = cast(Task, self._make("task"))
        needs = [key for conditioner in conditioners.values() for key in conditioner.needs]
        needs += task.needs if task.paired else ()
        wants = [key for conditioner in conditioners.values() for key in conditioner.wants]
        plan = Plan(
            data_space=dataset.space,
            prediction=self._prediction(),
            conditioning={name: conditioning(config) for name, config in self.recipe.conditioners.items()},
            precision=getattr(torch, self.recipe.header.precision),
            prompts=dataset_prompts(self._held_out() if task.paired else dataset, needs, wants),
            sample_batch=self.recipe.header.sample.batch,
            window=self.recipe.header.sample.window,
        )
        system = System(
            plan,
            autoencoder=autoencoder,
            task=task,
            schedule=cast(Schedule | None, schedule),
            denoiser=cast(Denoiser | None, denoiser),
            sampler=cast(Sampler | None, sampler),
            conditioners=conditioners,
        )
        return Built(system, dataset, dict(self.weights.hashes))

    def _held_out(self) -> Dataset:
        """Return the data that answers are shown on: held-out ones, where the recipe names them."""
        config = self.recipe.held_out
        if config is None:
            return cast(Dataset, self.parts[Dataset])
        return cast(Dataset, self._fitting("eval.held_out", lambda: self.recipe.registry.instantiate(config, {})))

    def _optional(self, role: str, interface: type) -> object | None:
        if self.recipe.part(role) is None:
            return None
        self.parts[interface] = self._make(role)
        return self.parts[interface]

    def _make(self, role: str) -> object:
        return self._construct(self.recipe.parts[role], role)

    def _construct(self, config: Config, role: str) -> object:
        def finish(made: Config, part: object) -> None:
            if isinstance(part, nn.Module) and isinstance(made.extras, ModuleSettings):
                name = role if made is config else None
                self.weights.apply(part, made.extras, name, ".".join(map(str, made.path)))

        on_meta: AbstractContextManager[Any] = torch.device("meta") if self._heavy(config) else nullcontext()
        with on_meta:
            return self._fitting(role, lambda: self.recipe.registry.instantiate(config, self.parts, finish=finish))

    def _heavy(self, config: Config) -> bool:
        return self.meta and config.kind in ("autoencoder", "denoiser", "conditioner", "task")

    def _fitting(self, role: str, make: Callable[[], Any]) -> Any:
        """Run `make`, turning what it raises into an error that has a place in the recipe."""
        try:
            return make()
        except ConfigError as error:
            raise self.recipe.error(error.problems) from error
        except RecipeError:
            raise
        except DiffloomError as error:
            mark = self.recipe.source.mark(tuple(role.split(".")))
            raise type(error)(
                f"{mark}: {role}: {error}" if mark else f"{role}: {error}",
            ) from error

    def _prediction(self) -> Any:
        config = self.recipe.part("denoiser")
        extras = config.extras if config is not None else None
        return extras.prediction if isinstance(extras, DenoiserSettings) else "eps"


def conditioning(config: Config) -> Conditioning:
    """Return how a recipe says that a conditioner takes part."""
    extras = config.extras if isinstance(config.extras, ConditionerSettings) else ConditionerSettings()
    return Conditioning(drop=extras.drop, guidance=extras.guidance, start=extras.start, end=extras.end)


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
