"""What every metric must do, on an evaluation of made-up images."""

import math
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.data import Dataset
from diffloom.errors import IncompatibleParts
from diffloom.metric import Metric
from diffloom.space import Space
from diffloom.system import System
from diffloom.testing.contracts.base import Contract, Make, NotApplicable, is_a, require
from diffloom.testing.judged import Judged


class MetricContract(Contract):
    """A metric gives named numbers that depend on the evaluation alone."""

    kind: ClassVar[str] = "metric"

    def check_figures(self, make: Make) -> None:
        """There are figures, each with a name and a number; NaN says that one is undefined."""
        found = self._measured(make())
        is_a(found, dict, "what measure returns")
        require(bool(found), "there are none")
        for name, value in found.items():
            require(isinstance(name, str) and bool(name), f"{name!r} is no name")
            require(isinstance(value, float), f"{name} is {value!r}, no float")
            require(not math.isinf(value), f"{name} is infinite; NaN is what says that a figure is undefined")

    def check_repeatable(self, make: Make) -> None:
        """Equal evaluations give equal figures to three digits, whatever cache and global random numbers are."""
        with torch.random.fork_rng(devices=[]):
            figures = []
            for seed in (1, 2):
                metric = make()
                torch.manual_seed(seed)  # after `make`, which seeds too
                figures.append(self._measured(metric))
        first, again = figures
        require(set(again) == set(first), f"the names were {', '.join(first)}, and then {', '.join(again)}")
        for name, value in first.items():
            same = math.isclose(again[name], value, rel_tol=1e-3, abs_tol=1e-3)
            same = same or (math.isnan(value) and math.isnan(again[name]))
            require(same, f"{name} was {value!r}, and then {again[name]!r}")

    def check_other_answers_give_other_figures(self, make: Make) -> None:
        """Answers of noise are not judged as the truth is."""
        near, far = (self._measured(make(), error) for error in (0.0, 3.0))
        require(near != far, f"both are {near}")

    def check_system_and_data_stay_as_they_are(self, make: Make) -> None:
        """The system keeps its mode, weights and what is frozen; batches and answers are not written into."""
        evaluation = _Watched(Path(_kept().name), cast(Space, self.provided[Space]))
        weight = torch.nn.Parameter(torch.ones(3))
        evaluation.system.task.register_parameter("watched", weight)
        before = _mode(evaluation.system), weight.detach().clone()
        self._measured(make(), evaluation=evaluation)
        require(_mode(evaluation.system) == before[0], "the system is in another mode, or freezes something else")
        require(torch.equal(weight.detach(), before[1]), "a weight of the system changed")
        for name, given, kept in evaluation.given:
            require(torch.equal(given, kept), f"it wrote into '{name}', which other metrics read")

    def _measured(self, metric: Metric, error: float = 0.1, *, evaluation: Judged | None = None) -> dict[str, float]:
        evaluation = evaluation or Judged(Path(_kept().name), cast(Space, self.provided[Space]), error=error)
        try:
            return metric.measure(evaluation)
        except IncompatibleParts as reason:
            raise NotApplicable(f"it cannot judge made-up pairs of images: {reason}") from reason


class _Watched(Judged):
    """An evaluation that remembers what it gave away, to see whether it is changed."""

    def __init__(self, cache: Path, space: Space) -> None:
        super().__init__(cache, space)
        self.given: list[tuple[str, Tensor, Tensor]] = []

    def pairs(self) -> Iterator[tuple[Batch, Batch]]:
        """Yield (batch, answer), remembered."""
        for batch, answer in super().pairs():
            self._remember(answer)
            yield batch, answer

    def real(self, dataset: Dataset, count: int) -> Iterator[Batch]:
        """Yield batches of `dataset`, remembered."""
        for batch in super().real(dataset, count):
            self._remember(batch)
            yield batch

    def _remember(self, batch: Batch) -> None:
        self.given += [(key, value, value.clone()) for key, value in batch.items() if isinstance(value, Tensor)]


def _mode(system: System) -> list[bool]:
    """Return which modules train, and which parameters are not frozen."""
    return [module.training for module in system.modules()] + [p.requires_grad for p in system.parameters()]


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    """Return the cache of all evaluations, so that a network is trained once; it goes when Python ends."""
    return tempfile.TemporaryDirectory(prefix="diffloom-judged-")
