"""Evaluate: predictions are made once, kept, and shared by every metric that asks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from diffloom.conditioner import Batch
from diffloom.data import Dataset, collate
from diffloom.engine.loader import order
from diffloom.noise import mix
from diffloom.system import System


class Evaluation:
    """A system under test; see `diffloom.metric.Evaluation` for what metrics may ask of it.

    Args:
        system: In evaluation mode, with averaged weights.
        train: The data it was trained on.
        held_out: Data it was not trained on.
        count: Items to judge.
        batch: Items at a time.
        seed: Seeds the choice of items and their noise.
        cache: A folder for what metrics want to keep.
        progress: Told (done, total) as predictions are made.
    """

    def __init__(
        self,
        system: System,
        *,
        train: Dataset,
        held_out: Dataset,
        count: int,
        batch: int,
        seed: int,
        cache: Path,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.system = system
        self.train = train
        self.held_out = held_out
        self.count = count
        self.batch = batch
        self.seed = seed
        self.cache = cache
        self._progress = progress
        self._pairs: list[tuple[Batch, Batch]] = []

    def pairs(self) -> Iterator[tuple[Batch, Batch]]:
        """Yield (batch, prediction) until `count` items have come; predictions are made once and kept."""
        yield from self._pairs
        for batch in self._batches(self.held_out, self.count, skip=len(self._pairs)):
            start = len(self._pairs) * self.batch
            size = len(batch["image"])
            seeds = [mix("evaluate", self.seed, start + i) for i in range(size)]
            asked = batch | {k: v[:size] for k, v in self._asked(start, size).items()}
            answer = self.system.predict(asked, seeds=seeds)
            self._pairs.append((asked, {key: value.cpu() for key, value in answer.items()}))
            self._progress(start + size, self.count)
            yield self._pairs[-1]

    def real(self, dataset: Dataset, count: int) -> Iterator[Batch]:
        """Yield batches of `dataset`, in a fixed shuffled order, until `count` items have come."""
        return self._batches(dataset, count, skip=0)

    def _asked(self, start: int, size: int) -> Batch:
        """Ask a generating task for the classes in turn, so that each is judged equally often."""
        if self.system.task.paired or not self.held_out.classes:
            return {}
        return {"label": torch.arange(start, start + size) % len(self.held_out.classes)}

    def _batches(self, dataset: Dataset, count: int, *, skip: int) -> Iterator[Batch]:
        """Yield `count` items in shuffled order, going round again where the data set has fewer."""
        length = len(dataset)
        for start in range(skip * self.batch, count, self.batch):
            places = [divmod(p, length) for p in range(start, min(count, start + self.batch))]
            indices = [order(mix("evaluate", self.seed), epoch, length)[place] for epoch, place in places]
            yield collate([dataset.get(index, seed=self.seed) for index in indices])
