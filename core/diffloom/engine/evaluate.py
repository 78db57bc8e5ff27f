"""Evaluate: predictions are made once, kept, and shared by every metric that asks."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

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
        for batch in self._batches(self.held_out, self._judged[len(self._pairs) * self.batch :]):
            start = len(self._pairs) * self.batch
            size = len(batch["image"])
            seeds = [mix("evaluate", self.seed, start + i) for i in range(size)]
            answer = self.system.predict(batch, seeds=seeds)
            self._pairs.append((batch, {key: value.cpu() for key, value in answer.items()}))
            self._progress(start + size, self.count)
            yield self._pairs[-1]

    def real(self, dataset: Dataset, count: int) -> Iterator[Batch]:
        """Yield batches of `dataset`, in a fixed shuffled order, until `count` items have come."""
        return self._batches(dataset, self._shuffled(len(dataset), count))

    @cached_property
    def _judged(self) -> list[int]:
        """Which held-out items are judged, in order.

        A generating task is asked for the classes in turn, so that each is judged equally often, as far as there are
        items of it; what else it is told is of the same item.
        """
        length = len(self.held_out)
        if self.system.task.paired or not self.held_out.classes or "label" not in self.held_out.keys:
            return self._shuffled(length, self.count)
        labels = [int(label) for label in self.held_out.column("label")]
        classes: dict[int, list[int]] = {label: [] for label in sorted(set(labels))}
        for index in self._shuffled(length, length):
            classes[labels[index]].append(index)
        turns = list(classes.values())
        places = (divmod(position, len(turns)) for position in range(self.count))
        return [turns[turn][place % len(turns[turn])] for place, turn in places]

    def _shuffled(self, length: int, count: int) -> list[int]:
        """Return `count` numbers of items in shuffled order, going round again where there are fewer."""
        places = (divmod(position, length) for position in range(count))
        return [order(mix("evaluate", self.seed), epoch, length)[place] for epoch, place in places]

    def _batches(self, dataset: Dataset, indices: Sequence[int]) -> Iterator[Batch]:
        """Yield the items of these numbers, `batch` at a time."""
        for start in range(0, len(indices), self.batch):
            yield collate([dataset.get(index, seed=self.seed) for index in indices[start : start + self.batch]])
