"""DiffusersSampler: a scheduler of diffusers as a grid and a pure step.

A scheduler changes itself at every call. Here each step begins with a copy of one that was never stepped, is given
what the last step left in `State.memory`, makes its calls, and gives its attributes back as tensors. So a walk can be
stopped, saved and resumed, and nothing of it stays behind. On the same network, levels and noise the result is that
of diffusers' own loop.
"""

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffloom.arithmetic import weighted
from diffloom.errors import IncompatibleParts
from diffloom.grid import Grid, Level
from diffloom.noise import Noise
from diffloom.prediction import Denoised
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule
from diffloom_diffusers.folder import SCHEDULER, described
from diffloom_diffusers.memory import capture, restore
from diffloom_diffusers.scheduler import Prepared, draws, facts, prepared, scheduler_class

_SAID = Field(description="not said here but in the scheduler's config")
Value = bool | int | float | str | list[float] | None


@dataclass(kw_only=True, eq=False)
class DiffusersSampler(Sampler):
    """Any of diffusers' schedulers that steps from a network's output: DDPM to UniPC, Euler to LCM, flow and EDM.

    The path is the recipe's schedule: a scheduler that is defined by a table is given that one. Everything else,
    spacing and final level above all, is what its config says.

    Attributes:
        folder: Of a scheduler or pipeline in diffusers' layout.
        scheduler: The class; by default the one that the folder's config names.
        config: Values that replace those of the folder's config.
        options: What every call is given besides: eta, s_churn, …
        mu: Resolution-dependent shift of flow schedulers that ask for it.
    """

    examples: ClassVar = (
        {"scheduler": "DDIMScheduler", "config": {"clip_sample": False, "timestep_spacing": "trailing"}},
        {"scheduler": "DPMSolverMultistepScheduler", "config": {"timestep_spacing": "trailing"}},
    )
    expected_failures: ClassVar = {
        "point-is-found": "diffusers' tables are in float32, so a point is found to about 1e-6",
        "claimed-order": "diffusers' schedulers choose their levels themselves, and walk no other grid",
    }

    spacing: Annotated[None, _SAID] = None  # type: ignore[assignment]  # here and below: narrowed to nothing
    offset: Annotated[None, _SAID] = None  # type: ignore[assignment]
    rho: Annotated[None, _SAID] = None  # type: ignore[assignment]
    final: Annotated[None, _SAID] = None  # type: ignore[assignment]
    folder: Annotated[Path | None, Field(description="folder of a scheduler, or of a pipeline")] = None
    scheduler: Annotated[str | None, Field(description="class, as in EulerDiscreteScheduler")] = None
    config: Annotated[Mapping[str, Value] | None, Field(description="values that replace the folder's")] = None
    options: Annotated[Mapping[str, Value] | None, Field(description="what each step is given: eta, s_churn …")] = None
    mu: Annotated[float | None, Field(description="shift of flow schedulers with dynamic shifting")] = None

    def __post_init__(self) -> None:
        """Read the config and refuse what the scheduler does not know.

        Raises:
            CheckpointError: The folder holds no scheduler.
            IncompatibleParts: There is no such scheduler, or it does not take what it is given.
        """
        values: dict[str, Any] = {}
        if self.folder is not None:
            values = described(self.folder, ("scheduler",), SCHEDULER)[1]
        cls = scheduler_class(self.scheduler or values.get("_class_name"), "sampler.scheduler")
        changed: dict[str, Any] = dict(self.config or {})
        if self.clip is not None:
            changed |= {"clip_sample": True, "clip_sample_range": self.clip}
        _known(changed, set(inspect.signature(cls.__init__).parameters), "sampler.config", cls)
        _known(self.options or {}, set(inspect.signature(cls.step).parameters) - _OURS, "sampler.options", cls)
        settings = {"timesteps": list(self.timesteps) if self.timesteps else None, "mu": self.mu}
        settings = {key: value for key, value in settings.items() if value is not None}
        _known(settings, set(inspect.signature(cls.set_timesteps).parameters), "sampler", cls)
        plain = {key: value for key, value in values.items() if not key.startswith("_")}
        self._name, self._settings = cls.__name__, json.dumps(settings)
        self._config, self._options = json.dumps({**plain, **changed}), json.dumps(dict(self.options or {}))
        self._learned, clip = facts(self._name, self._config)
        self.clip = self.clip if clip is None else clip  # told, so that clipping of latents is noticed

    @property
    def stochastic(self) -> bool:
        """Whether steps draw noise; found out by two short walks with different seeds."""
        return draws(self._name, self._config, self.steps or 10, self._settings, self._options)

    @property
    def needs_spread(self) -> bool:
        """Whether the scheduler is for networks with learned variance."""
        return self._learned

    def grid(self, schedule: Schedule) -> Grid:
        """Return the levels to visit on a schedule; see `Sampler.grid`."""
        found = self._prepared(schedule)
        return Grid.of(schedule, found.times[:-1], end=found.times[-1])

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        if noise is None and self.stochastic:
            self.draw(None, state)  # says what is missing
        here = self._prepared(schedule)
        _require_own(here, grid)
        if state.x.device.type == "meta":  # shapes alone: no scheduler changes one
            model(state.x, grid.t[state.index])
            return State(torch.empty_like(state.x), state.index + 1)
        scheduler = restore(here.template, state.memory)
        if state.index and not state.memory and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(here.starts[state.index])
        kept = state.x.dtype if state.x.dtype == torch.float64 else torch.float32
        before, after = _scale(here, grid, state.index), _scale(here, grid, state.index + 1)
        y = weighted((before, state.x.to(kept)))
        for call in range(here.starts[state.index], here.starts[state.index + 1]):
            walk = _Call(here, scheduler, call, state.x.dtype)
            output = walk.output(model, schedule, y)
            y = walk.step(output, y, self._given(noise, state, call))
        memory = capture(scheduler, here.template)
        return State(weighted((1 / after, y)).to(state.x.dtype), state.index + 1, memory)

    def _prepared(self, schedule: Schedule) -> Prepared:
        count = len(self.timesteps) if self.timesteps else schedule.steps if self.steps is None else self.steps
        if count > schedule.steps:
            raise IncompatibleParts(
                f"{count} sampling steps do not fit a schedule of {schedule.steps}",
                where="sampler.steps",
                expected=f"1 … {schedule.steps}",
                got=str(count),
                remedy=f"set sampler.steps to {schedule.steps} at most, or give the schedule more steps",
            )
        return prepared(schedule, self._name, self._config, count, self._settings)

    def _given(self, noise: Noise | None, state: State, call: int) -> dict[str, Any]:
        """Return what one call is given besides: a random stream for each item, never the global one."""
        given: dict[str, Any] = json.loads(self._options)
        seeds = noise or Noise(range(state.x.shape[0]))
        if "generator" in inspect.signature(scheduler_class(self._name, "sampler").step).parameters:
            given["generator"] = seeds.generators("diffusers", call)
        return given


_OURS = {"self", "model_output", "timestep", "sample", "generator", "return_dict"}


@dataclass(frozen=True)
class _Call:
    """One call of a scheduler.

    Attributes:
        here: What the calls mean.
        scheduler: The scheduler, which the call changes.
        number: Which call it is.
        dtype: The type in which the network is asked.
    """

    here: Prepared
    scheduler: Any
    number: int
    dtype: torch.dtype

    def output(self, model: Model, schedule: Schedule, y: Tensor) -> Tensor:
        """Return the network's output as the scheduler expects it, for a sample y in its space."""
        t = torch.tensor(self.here.asked[self.number], dtype=torch.float64, device="cpu")
        level = Level.of(schedule, float(t))
        radius = math.hypot(level.alpha, level.sigma)
        said = model(self._shown(y, level).to(self.dtype), t)
        said = replace(said, x0=said.x0.to(y.dtype), eps=said.eps.to(y.dtype))
        if self.here.space == "edm":
            return self._preconditioned(said, y)
        output = said.to_output(self.here.kind, level.alpha / radius, level.sigma / radius)
        if self.here.learned and said.spread is not None:
            output = torch.cat([output, said.spread.to(y.dtype)], 1)
        return output

    def step(self, output: Tensor, y: Tensor, given: Mapping[str, Any]) -> Tensor:
        """Return the sample that the scheduler makes of it."""
        stepped: Tensor = self.scheduler.step(output, self._tau, y, return_dict=False, **given)[0]
        return stepped.to(y.dtype)

    @property
    def _tau(self) -> Tensor:
        tau: Tensor = self.scheduler.timesteps[self.number]
        return tau

    @property
    def _sigma(self) -> float:
        return float(self.scheduler.sigmas[self.number])

    def _shown(self, y: Tensor, level: Level) -> Tensor:
        """Return what the network is shown of a sample, on our path."""
        scheduler, space = self.scheduler, self.here.space
        shown: Tensor = scheduler.scale_model_input(y, self._tau) if hasattr(scheduler, "scale_model_input") else y
        if space == "edm":
            return weighted((level.alpha, y))
        if space == "flow":
            return weighted((level.alpha + level.sigma, y))
        return weighted((math.hypot(level.alpha, level.sigma), shown))

    def _preconditioned(self, said: Denoised, y: Tensor) -> Tensor:
        """Return the output F with D(y) = c_skip y + c_out F = x̂_0 (Karras et al. 2022, eq. 7)."""
        sigma, one, none = self._sigma, torch.ones((), device="cpu"), torch.zeros((), device="cpu")
        skip = float(self.scheduler.precondition_outputs(one, none, sigma))
        out = float(self.scheduler.precondition_outputs(none, one, sigma))
        return weighted((1 / out, said.x0), (-skip / out, y))


def _scale(here: Prepared, grid: Grid, index: int) -> float:
    """Return what a sample of theirs is multiples of x at a level."""
    level = grid.levels[index]
    return here.size(here.ratios[index]) / math.hypot(level.alpha, level.sigma)


def _require_own(here: Prepared, grid: Grid) -> None:
    """Refuse a grid that is not this sampler's own."""
    if grid.times != here.times:
        raise IncompatibleParts(
            f"{type(here.template).__name__} walks no grid but its own",
            where="sampler",
            expected=f"the {len(here.times) - 1} levels of its grid(schedule)",
            got=f"another one of {len(grid)}",
        )


def _known(given: Mapping[str, Any], taken: set[str], where: str, cls: type[Any]) -> None:
    odd = sorted(given.keys() - taken)
    if odd:
        raise IncompatibleParts(
            f"{cls.__name__} does not take {', '.join(odd)}",
            where=where,
            expected=f"some of {', '.join(sorted(taken - _OURS))}",
            got=", ".join(f"{name}: {given[name]}" for name in odd),
        )
