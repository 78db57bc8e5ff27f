"""Loader: which samples a step sees, as a function of the seed and the step alone.

Sample number p of a run (p = step · batch + place) is item  order(epoch)[p mod N]  of epoch  p div N. Nothing is
carried along, so a run that goes on at step k reads what an unbroken run would have read, whatever the number of
workers or processes.
"""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from diffloom.conditioner import Batch
from diffloom.data import Dataset, Sample, collate
from diffloom.noise import mix


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, length: int) -> tuple[int, ...]:
    """Return the order of an epoch: a permutation of 0 … length − 1 drawn from (seed, epoch)."""
    generator = torch.Generator().manual_seed(mix("order", seed, epoch))
    return tuple(torch.randperm(length, generator=generator).tolist())


class Stream:
    """The batches of a run from one step on.

    Args:
        dataset: Read through `Dataset.get`.
        seed: The run's seed.
        batch: Samples per step, over all processes.
        start: First step.
        stop: Step before which to end.
        rank: This process, of `world`.
        world: How many processes share a step's samples.
        workers: Processes that read ahead; 0 reads in this one.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int,
        batch: int,
        start: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.batch = batch
        self.steps = range(start, stop)
        self.share = slice(rank * batch // world, (rank + 1) * batch // world)
        self.workers = workers

    def positions(self, step: int) -> list[int]:
        """Return the sample numbers that this process sees at a step."""
        return list(range(step * self.batch, (step + 1) * self.batch))[self.share]

    def seeds(self, step: int) -> list[int]:
        """Return one noise seed per sample of a step, different for every sample number of the run."""
        return [mix("train", self.seed, position) for position in self.positions(step)]

    def __iter__(self) -> Iterator[Batch]:
        length = len(self.dataset)

        def places() -> Iterator[list[tuple[int, int]]]:
            for step in self.steps:
                numbers = [divmod(position, length) for position in self.positions(step)]
                yield [(epoch, order(self.seed, epoch, length)[place]) for epoch, place in numbers]

        yield from DataLoader(
            _Reader(self.dataset, self.seed),
            batch_sampler=places(),
            num_workers=self.workers,
            collate_fn=collate,
            persistent_workers=False,
        )


class _Reader(TorchDataset[Sample]):
    """A data set indexed by (epoch, index), as torch's loader wants it."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        epoch, index = place
        return self.dataset.get(index, seed=self.seed, epoch=epoch)
