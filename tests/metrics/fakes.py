"""A system under test that answers what it is told to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.data import Dataset, Sample, collate
from diffloom.space import Space
from diffloom.system import System

Answer = Callable[[Batch], Batch]


class Judged:
    """An evaluation over data sets whose predictions are `answer(batch)`."""

    def __init__(
        self,
        train: Dataset,
        cache: Path,
        answer: Answer,
        *,
        held_out: Dataset | None = None,
        count: int = 100,
        seed: int = 0,
        task: object = None,
    ) -> None:
        device = torch.device("cpu")
        self.system = cast(System, SimpleNamespace(device=device, task=task or SimpleNamespace(paired=True)))
        self.train = train
        self.held_out = train if held_out is None else held_out
        self.count = count
        self.seed = seed
        self.cache = cache
        self.answer = answer

    def pairs(self) -> Iterator[tuple[Batch, Batch]]:
        for batch in self.real(self.held_out, self.count):
            yield batch, self.answer(batch)

    def real(self, dataset: Dataset, count: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(dataset), generator=generator).tolist()[:count]
        for start in range(0, len(order), 64):
            yield collate([dataset.get(index) for index in order[start : start + 64]])


class Listed(Dataset):
    """Samples held in memory."""

    def __init__(self, samples: list[Sample], classes: tuple[str, ...] = ()) -> None:
        self.samples = samples
        self.keys = tuple(samples[0])
        self.classes = classes
        image = samples[0]["image"]
        self.space = Space(image.shape[0], tuple(image.shape[1:]))

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> Sample:
        return dict(self.samples[index])


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    """Return random images (count, *shape) in [−1, 1]."""
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def listed(count: int, *shape: int, seed: int = 0) -> Listed:
    """Return random images without labels."""
    return Listed([{"image": image} for image in images(count, *shape, seed=seed)])


def same(batch: Batch) -> dict[str, Any]:
    """Answer with the truth."""
    return {"image": batch["image"]}
