"""Metric: a figure that says how good a system is.

All metrics of a run share one `Evaluation`: real batches and predictions are made once, whoever asks first.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from diffloom.conditioner import Batch
from diffloom.data import Dataset
from diffloom.system import System


class Evaluation(Protocol):
    """What a metric may look at.

    Attributes:
        system: The system under test, in evaluation mode, with averaged (EMA) weights.
        train: The data that it was trained on.
        held_out: Data that it was not trained on; the same as `train` when the recipe names none.
        count: How many items to judge.
        seed: Seeds everything.
        cache: A folder where a metric may keep what is costly (a trained classifier, reference statistics).
    """

    system: System
    train: Dataset
    held_out: Dataset
    count: int
    seed: int
    cache: Path

    def pairs(self) -> Iterator[tuple[Batch, Batch]]:
        """Yield (batch, prediction) until `count` items have come; predictions are made once and kept."""

    def real(self, dataset: Dataset, count: int) -> Iterator[Batch]:
        """Yield batches of `dataset`, in a fixed shuffled order, until `count` items have come."""


class Metric(ABC):
    """Base of all metrics."""

    @abstractmethod
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return named figures; NaN where a figure is undefined."""
