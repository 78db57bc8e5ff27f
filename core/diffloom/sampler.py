"""Sampler: a grid of levels and a pure step from one level to the next.

A sampler has no hidden state. `State(x, index, memory)` holds tensors only, so sampling can stop after any
step, be saved, and go on bit-equal; noise is an argument. A model is any callable `model(x_t, t) ->
Denoised`.
"""

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.arithmetic import weighted
from diffloom.errors import IncompatibleParts
from diffloom.grid import Grid, Level, Spacing, spaced
from diffloom.noise import Noise
from diffloom.prediction import Denoised
from diffloom.schedule import Schedule

__all__ = ["Grid", "Level", "Model", "OnStep", "Sampler", "Spacing", "State"]

Model = Callable[[Tensor, Tensor], Denoised]
"""`model(x_t, t)`: x_t (B, C, *spatial); t a 0-d float64 CPU tensor, one level for the whole batch."""

_INDEX = "index"
_X = "x"


@dataclass(frozen=True, eq=False)
class State:
    """Where sampling stands: x at level `index` of the grid, and what a multistep sampler remembers.

    Attributes:
        x: The noisy data, (B, C, *spatial); clean once `index` is the number of steps.
        index: Which level of the grid x is at.
        memory: What the steps so far left for the next ones; names are the sampler's own.
    """

    x: Tensor
    index: int
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return everything as one flat dict of tensors, ready for a safetensors file."""
        memory = {f"memory.{name}": value for name, value in self.memory.items()}
        return {_X: self.x, _INDEX: torch.tensor(self.index, device="cpu"), **memory}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "State":
        """Return the state that `to_tensors` gave away."""
        memory = {k.removeprefix("memory."): v for k, v in tensors.items() if k.startswith("memory.")}
        return cls(tensors[_X], int(tensors[_INDEX]), memory)


OnStep = Callable[[State], None]
"""Called after every step with the state reached."""


@dataclass(kw_only=True, eq=False)
class Sampler(ABC):
    """Base of all samplers; see the module's text for the law.

    A subclass gives `step`, and may add parameters of its own as fields. It must not change itself while
    sampling.

    Attributes:
        order: Claimed order of convergence as steps double, towards the exact flow or, with noise drawn, the exact
            distribution; the test kit measures it.
        stochastic: Whether steps draw noise, so that `noise` must be given.
    """

    order = 1

    steps: Annotated[int | None, Field(gt=0, description="how many levels to visit; all of them by default")] = 50
    spacing: Annotated[Spacing, Field(description="how the levels are spread over the schedule")] = "trailing"
    offset: Annotated[int, Field(ge=0, description="added to every level of the leading spacing")] = 0
    rho: Annotated[float, Field(gt=0, description="exponent of the karras spacing")] = 7.0
    timesteps: Annotated[
        tuple[float, ...] | None,
        Field(min_length=1, description="the levels themselves, descending, in place of steps and spacing"),
    ] = None
    final: Annotated[
        Literal["clean", "first"],
        Field(description="where the last step leads: to clean data, or to level 0"),
    ] = "clean"
    clip: Annotated[
        float | None, Field(gt=0, description="limit of the clean estimate's magnitude; never for latents")
    ] = None

    @property
    def stochastic(self) -> bool:
        """Whether steps draw noise."""
        return False

    @property
    def needs_spread(self) -> bool:
        """Whether steps need `Denoised.spread`, which only networks with learned variance give."""
        return False

    @abstractmethod
    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go from level `state.index` of the grid to the next; never mutates `state`.

        Args:
            model: What says what is noise and what is not.
            schedule: The path that the grid was made for.
            grid: What `grid(schedule)` returned.
            state: Where sampling stands, at an index below the number of steps.
            noise: One stream per item; may be `None` where nothing is drawn.
        """

    def grid(self, schedule: Schedule) -> Grid:
        """Return the levels to visit on a schedule.

        Raises:
            IncompatibleParts: If there are more steps than levels, or the times do not descend to the end.
        """
        times: Tensor | tuple[float, ...] | None = self.timesteps
        if times is None:
            times = spaced(schedule, self.steps, self.spacing, offset=self.offset, rho=self.rho)
        if self.final == "clean":
            return Grid.of(schedule, times)
        if self.timesteps is None and times[-1] == 0 and len(times) < schedule.steps:
            times = spaced(schedule, len(times) + 1, self.spacing, offset=self.offset, rho=self.rho)[:-1]
        return Grid.of(schedule, times, end=0.0)

    @typing.final
    def start(self, schedule: Schedule, z: Tensor, x0: Tensor | None = None, strength: float = 1.0) -> State:
        """Return where to begin.

        Args:
            schedule: The path.
            z: Standard normal noise, (B, C, *spatial).
            x0: Clean data to begin from (image to image), the shape of z; `None` to begin from pure noise.
            strength: In [0, 1], with x0: which part of the steps to make, so how much may change; where that is
                less than one step, x0 is left as it is.

        Raises:
            ValueError: If the strength is not in [0, 1].
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be in [0, 1], got {strength}")
        grid = self.grid(schedule)
        if x0 is None:
            return State(weighted((grid.scale, z)), 0)
        index = grid.entry(strength)
        level = grid.levels[index]
        return State(x0 if index == len(grid) else weighted((level.alpha, x0), (level.sigma, z)), index)

    @typing.final
    def sample(
        self,
        model: Model,
        schedule: Schedule,
        x_T: Tensor | State,  # noqa: N803  the papers' name
        noise: Noise | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return x_0, having made all steps that are left.

        Args:
            model: What says what is noise and what is not.
            schedule: The path.
            x_T: Noisy data at the first level (`start` scales noise to it); or a `State` to go on from.
            noise: One stream per item; needed by stochastic samplers only.
            on_step: Called after every step.
        """
        grid = self.grid(schedule)
        state = x_T if isinstance(x_T, State) else State(x_T, 0)
        while state.index < len(grid):
            state = self.step(model, schedule, grid, state, noise)
            if on_step is not None:
                on_step(state)
        return state.x

    def denoise(self, model: Model, x: Tensor, t: Tensor, level: Level, *, rederive: bool = True) -> Denoised:
        """Return what the model says about x at time t, clipped if the sampler clips.

        Args:
            model: What is asked.
            x: Noisy data, (B, C, *spatial).
            t: 0-d float64.
            level: The level of t.
            rederive: Whether ε follows a clipped x_0 (see `Denoised.clipped`).
        """
        said = model(x, t)
        if self.clip is None:
            return said
        return said.clipped(self.clip, x, level.alpha, level.sigma, rederive=rederive)

    def draw(self, noise: Noise | None, state: State, *key: str) -> Tensor:
        """Return the standard normal noise of this step, the shape and type of `state.x`.

        Raises:
            IncompatibleParts: If there is no noise to draw from.
        """
        if noise is None:
            raise IncompatibleParts(
                f"{type(self).__name__} draws noise, and was given none to draw from",
                where="sampler",
                expected="noise=Noise(seeds), one seed per item",
                got="None",
                remedy="pass noise, or choose a deterministic setting",
            )
        return noise.normal(state.x, state.index, *key)
