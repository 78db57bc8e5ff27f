"""Run: a recipe at work in a folder of its own.

    recipe.lock.yaml   everything resolved, with the version of every component: reruns the run
    metrics.jsonl      one record per logged step
    checkpoints/       step-NNNNNNNN/: safetensors and JSON, checked by hash
    samples/           pictures
    evaluation.json    figures by sampler and metric
    report.html        all of it on one page

A folder that already holds a run of the same recipe is gone on with; one of another recipe is never touched.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from math import isfinite, nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffloom import checkpoint
from diffloom.conditioner import Batch
from diffloom.data import Dataset
from diffloom.engine import hooks as specs
from diffloom.engine.evaluate import Evaluation
from diffloom.engine.stopping import Stop, interruptible
from diffloom.engine.trail import Trail
from diffloom.engine.trainer import Trainer, fit
from diffloom.errors import CheckpointError, DiffloomError, IncompatibleParts, RecipeError
from diffloom.metric import Metric
from diffloom.recipe import lock
from diffloom.recipe.build import Built, build
from diffloom.recipe.recipe import Recipe, load
from diffloom.sampler import Sampler
from diffloom.system import System
from diffloom_registry import Config
from diffloom_registry.hooks import Hooks

LOCK_FILE = "recipe.lock.yaml"
EVALUATION_FILE = "evaluation.json"


class Run:
    """A recipe in a folder.

    Args:
        recipe: What to do.
        directory: Where to keep it; `runs/NAME` by default.
        hooks: Behaviours by name; the recipe's by default.
        plugins: Further hook objects, by name.

    Raises:
        RecipeError: Where the folder holds a run of another recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        directory: Path | None = None,
        *,
        hooks: Sequence[str] | None = None,
        plugins: Mapping[str, object] | None = None,
    ) -> None:
        self.recipe = recipe
        self.directory = directory or Path("runs") / recipe.header.name
        self.step = 0
        self._built: Built | None = None
        self._new = False
        self._drift: list[str] = lock.drift(recipe)
        self.hooks = Hooks(project="diffloom", specs=specs, group="diffloom.hooks")
        unusable = self.hooks.enable(recipe.header.hooks if hooks is None else hooks)
        for name, plugin in (plugins or {}).items():
            self.hooks.register(plugin, name)
        self._lock()
        for broken in unusable:
            self.message(f"this behaviour is left out: {broken.error}")

    @classmethod
    def of(cls, directory: Path, **changes: Any) -> "Run":
        """Return the run that a folder holds, to sample or judge it again; RecipeError where it holds none."""
        file = directory / LOCK_FILE
        if not file.is_file():
            raise RecipeError(f"{directory} holds no run", expected=f"the file {file}", remedy="train a recipe first")
        return cls(load(file), directory, **changes)

    # --- parts -------------------------------------------------------------------------------------------------

    @property
    def built(self) -> Built:
        """The system and its data, built at the first use."""
        if self._built is None:
            self._built = build(self.recipe, runs=self.directory.parent)
            if self._new and _first_process():
                lock.write(self.recipe, self.directory / LOCK_FILE, self._built.weights)
        return self._built

    @property
    def system(self) -> System:
        """The system."""
        return self.built.system

    @property
    def dataset(self) -> Dataset:
        """The training data."""
        return self.built.dataset

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.directory / "checkpoints"

    def held_out(self) -> Dataset:
        """Return the held-out data, the training data where the recipe names none."""
        config = self.recipe.held_out
        return self.dataset if config is None else self._make(config, Dataset)

    # --- work --------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train from the newest sound checkpoint, or from the start, to the recipe's last step; 0 steps do nothing."""
        settings = self.recipe.header.train
        for difference in self._drift:
            self.message(f"not what the run was made with: {difference}")
        if not settings.steps:
            return
        trainer = Trainer(
            self.system, self.dataset, settings, seed=self.recipe.header.seed, device=self.recipe.header.device
        )
        main = trainer.accelerator.is_main_process
        saved = checkpoint.newest(self.checkpoints, self.message)
        if saved is not None:
            trainer.restore(saved[1])
        self.step = trainer.step
        if self.step < settings.steps:
            with self._acting(main), interruptible() as stopped:
                self._train(trainer, main, stopped)
            trainer.accelerator.wait_for_everyone()
        _assign(trainer.average.live, trainer.average.copies)
        self.system.eval()

    def _train(self, trainer: Trainer, main: bool, stopped: Stop) -> None:
        settings = self.recipe.header.train
        for record in trainer.steps():
            self.step = trainer.step
            if self.step == settings.steps:
                trainer.finish()
            if main:
                self._after_step(trainer, record)
            due = self.step % settings.checkpoint_every == 0 or self.step == settings.steps or stopped.asked
            if due and main:
                self._save(trainer)
            if stopped.asked:
                raise KeyboardInterrupt

    def _after_step(self, trainer: Trainer, record: dict[str, float] | None) -> None:
        settings = self.recipe.header.train
        if record is not None:
            self.call("diffloom_step", step=self.step, record=record)
        self.call("diffloom_progress", stage="train", done=self.step, total=settings.steps)
        if self.step == 1:
            for finding in trainer.found.findings():
                self.message(f"audit: {finding}")
        if settings.sample_every and self.step % settings.sample_every == 0 and self.step < settings.steps:
            self.system.eval()
            with trainer.average.applied():
                self.sample()
        if self.step == settings.steps:
            for name in trainer.check_conditions():
                self.message(f"audit: the output ignores the condition {name}")

    def _save(self, trainer: Trainer) -> None:
        path = checkpoint.save(self.checkpoints, self.step, trainer.checkpoint(), keep=self.recipe.header.train.keep)
        self.call("diffloom_checkpoint", step=self.step, path=path)

    def load(self) -> None:
        """Give the system the averaged weights of the newest checkpoint; CheckpointError where one is missing."""
        saved = checkpoint.newest(self.checkpoints, self.message)
        if saved is None:
            if self.recipe.header.train.steps and any(True for _ in self.system.parameters()):
                raise CheckpointError(
                    "this run has no checkpoint yet",
                    where=str(self.directory),
                    remedy=f"train it: diffloom train {self.recipe.header.name}",
                )
            return
        self.step, state = saved
        average = state.tensors["average"]
        live = {f"{role}:{n}": t for role, part in self.system.roles().items() for n, t in part.state_dict().items()}
        wanted = {name: live[name] for name in live if name in average or name.split(":")[0] in _roles(average)}
        fit(str(self.checkpoints), wanted, average)
        _assign(wanted, average)
        self.system.eval()

    def sample(
        self, count: int | None = None, *, seeds: Sequence[int] | None = None, batch: Batch | None = None
    ) -> dict[str, Any]:
        """Draw samples, tell the hooks and return them.

        Args:
            count: How many; the recipe's by default.
            seeds: One per item; 0 … count − 1 by default.
            batch: What to ask for; by default the system's prompts.

        Returns:
            `image` (N, C, H, W) in [−1, 1], `seeds`, `batch`, and `trajectory` (frames, n, C, H, W): some states of
            the first items on their way from noise to image, where the task walks a sampler.
        """
        numbers = list(seeds if seeds is not None else range(count or self.recipe.header.sample.count))
        asked = self.system.prompts(len(numbers)) if batch is None else batch
        answers: list[dict[str, Tensor]] = []
        trail = Trail(self.system)
        done = 0
        with self.system.observed(trail):
            for answer in self.system.stream(asked, numbers):
                answers.append({key: value.cpu() for key, value in answer.items()})
                done += len(next(iter(answer.values())))
                trail.closed = True
                self.call("diffloom_progress", stage="sample", done=done, total=len(numbers))
        outputs: dict[str, Any] = {key: torch.cat([a[key] for a in answers]) for key in answers[0]}
        outputs |= {"seeds": numbers, "batch": asked}
        if trail.frames:
            outputs["trajectory"] = trail.pictures()
        self.call("diffloom_sampled", step=self.step, outputs=outputs)
        return outputs

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Judge the system by every metric of the recipe, with every sampler it names; write and return the figures."""
        settings = self.recipe.header.eval
        held_out = self.held_out()
        metrics = [self._make(config, Metric) for config in self.recipe.metrics]
        samplers: dict[str, Config | None] = {"sampler": None, **self.recipe.samplers}
        figures: dict[str, dict[str, float]] = {}
        for name, config in samplers.items():
            evaluation = Evaluation(
                self.system,
                train=self.dataset,
                held_out=held_out,
                count=settings.count,
                batch=settings.batch,
                seed=self.recipe.header.seed,
                cache=self.directory / "cache",
                progress=partial(self._judging, name),
            )
            with self.system.sampled_by(self._make(config, Sampler)) if config else nullcontext():
                figures[name] = {key: v for metric in metrics for key, v in _figures(metric, evaluation).items()}
        written = {name: {k: v if isfinite(v) else None for k, v in row.items()} for name, row in figures.items()}
        used = {"sampler": self.recipe.parts.get("sampler"), **self.recipe.samplers}
        told = {name: config.resolved() for name, config in used.items() if config is not None}
        record = {"step": self.step, "samplers": told, "figures": written}
        checkpoint.write_json(self.directory / EVALUATION_FILE, record)
        self.call("diffloom_evaluated", figures=figures)
        return figures

    def _judging(self, sampler: str, done: int, total: int) -> None:
        self.call("diffloom_progress", stage=f"evaluate {sampler}", done=done, total=total)

    # --- hooks -------------------------------------------------------------------------------------------------

    def call(self, hook: str, **arguments: Any) -> None:
        """Call a hook of every plugin; one that fails is named in a message and does not stop the run."""
        if _first_process():
            self.hooks.call(hook, on_error=self._failed, run=self, **arguments)

    def message(self, text: str) -> None:
        """Tell the user something through the hooks."""
        self.call("diffloom_message", text=text)

    def _failed(self, error: DiffloomError) -> None:
        self.hooks.call("diffloom_message", on_error=lambda _: None, run=self, text=str(error))

    @contextmanager
    def _acting(self, main: bool) -> Iterator[None]:
        if main:
            self.call("diffloom_run_started")
        try:
            yield
        finally:
            if main:
                self.call("diffloom_run_finished")

    # --- inside ------------------------------------------------------------------------------------------------

    def _make(self, config: Config, interface: type[Any]) -> Any:
        return self.recipe.registry.instantiate(config, {})

    def _lock(self) -> None:
        file = self.directory / LOCK_FILE
        if not _first_process():
            return
        if file.is_file():
            lock.same(self.recipe, file)
            self._drift = list(dict.fromkeys([*self._drift, *lock.drift(load(file, registry=self.recipe.registry))]))
        elif self.directory.is_dir() and any(self.directory.iterdir()):
            raise RecipeError(
                f"the folder {self.directory} holds other things",
                remedy="choose another with --out; nothing was changed",
            )
        else:
            self._new = True
            self.directory.mkdir(parents=True, exist_ok=True)
            lock.write(self.recipe, file, {})


def _figures(metric: Metric, evaluation: Evaluation) -> dict[str, float]:
    """Return a metric's figures; IncompatibleParts where it gives something else."""
    found: object = metric.measure(evaluation)
    if isinstance(found, dict):
        return found
    raise IncompatibleParts(
        "what it measured are no figures",
        where=f"{type(metric).__name__} ({type(metric).__module__})",
        expected="a dict of names and numbers",
        got=type(found).__name__,
        remedy="mend its `measure`; `diffloom eval` then judges the run as it is, which is kept",
    )


def _first_process() -> bool:
    """Tell whether this is the process that writes, of those that torchrun started; the only one otherwise."""
    return int(os.environ.get("RANK", "0")) == 0


def _roles(tensors: Mapping[str, Tensor]) -> set[str]:
    return {name.split(":")[0] for name in tensors}


@torch.no_grad()
def _assign(live: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in live.items():
        tensor.copy_(values[name])


def figures_of(directory: Path) -> dict[str, dict[str, float]]:
    """Return the figures of a run's last evaluation, sampler → metric → value; empty where there was none."""
    file = directory / EVALUATION_FILE
    if not file.is_file():
        return {}
    figures: dict[str, dict[str, float | None]] = json.loads(file.read_text(encoding="utf-8"))["figures"]
    return {name: {k: nan if v is None else v for k, v in row.items()} for name, row in figures.items()}
