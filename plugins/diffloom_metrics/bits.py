"""Bits per dimension: how many bits a diffusion needs to write down data, for each of their numbers."""

from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom.metric import Evaluation, Metric
from diffloom.noise import Noise, mix
from diffloom.system import System, to_device


@runtime_checkable
class Likelihood(Protocol):
    """A task that can say how likely data are."""

    def bits_per_dim(
        self, system: System, batch: Batch, noise: Noise, *, steps: int | None = None
    ) -> dict[str, Tensor]:
        """Return named terms in bits per dimension, each (B,); of `steps` levels of the chain, or of all."""


class BitsPerDim(Metric):
    """The bound on the negative log-likelihood that the task gives, in bits for each number of the data.

    Every item passes through the whole chain, so this is the most costly of metrics: choose `count` and `steps`.

    Args:
        data: The data that are written down.
        count: How many items; by default as many as the evaluation judges.
        steps: Levels of the chain; all by default. Fewer give a looser bound.
    """

    def __init__(
        self,
        *,
        data: Literal["held_out", "train"] = "held_out",
        count: Annotated[int, Field(gt=0)] | None = None,
        steps: Annotated[int, Field(gt=0)] | None = None,
    ) -> None:
        self.data = data
        self.count = count
        self.steps = steps

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return the mean of each of the task's terms, as `bits-per-dim/TERM`.

        Raises:
            IncompatibleParts: The task has no likelihood.
        """
        system = evaluation.system
        task: object = system.task
        if not isinstance(task, Likelihood):
            raise IncompatibleParts(
                "the task has no likelihood",
                where=f"the task {type(task).__name__}",
                expected="one with a method bits_per_dim",
                remedy="leave out the metric `bits-per-dim`",
            )
        dataset = evaluation.held_out if self.data == "held_out" else evaluation.train
        asked = min(self.count or evaluation.count, len(dataset))
        sums: dict[str, float] = {}
        seen = 0
        for batch in evaluation.real(dataset, asked):
            size = len(batch["image"])
            noise = Noise(mix("bits-per-dim", evaluation.seed, seen + i) for i in range(size))
            with torch.inference_mode():
                moved = to_device(batch, system.device)
                terms = task.bits_per_dim(system, moved, noise, steps=self.steps)
            for name, values in terms.items():
                sums[name] = sums.get(name, 0.0) + float(values.double().sum())
            seen += size
        return {f"bits-per-dim/{name}": value / seen for name, value in sums.items()}
