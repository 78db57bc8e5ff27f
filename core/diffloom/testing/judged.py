"""An evaluation to try metrics on: made-up labelled images, and answers that are the truth with some noise."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.data import Dataset, Sample, collate
from diffloom.noise import Noise, mix
from diffloom.space import Space
from diffloom.system import Plan, System
from diffloom.task import Objective, Task
from diffloom.testing.standins import PlainAutoencoder

__all__ = ["Judged", "Stripes"]


class Stripes(Dataset):
    """Upright and level stripes of random phase, half of each: two classes that are easily told apart.

    Args:
        count: How many images.
        space: Of the images.
        seed: Of the phases.
    """

    keys = ("image", "label")
    classes = ("upright", "level")

    def __init__(self, *, count: int, space: Space, seed: int = 0) -> None:
        self.count, self.space, self.seed = count, space, seed

    def __len__(self) -> int:
        """Return how many images there are."""
        return self.count

    def read(self, index: int) -> Sample:
        """Return one image with its label."""
        generator = torch.Generator().manual_seed(mix("stripes", self.seed, index))
        label = index % 2
        side = self.space.size[label - 1]
        phase = 6.28 * torch.rand((), generator=generator)
        wave = torch.sin(1.5 * torch.arange(side) + phase)
        image = wave.expand(self.space.shape) if label == 0 else wave[:, None].expand(self.space.shape)
        return {"image": 0.8 * image + 0.1 * torch.randn(self.space.shape, generator=generator), "label": label}


class _Echo(Task):
    """Answers with the batch's own image."""

    paired = True

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return nothing to train."""
        return []

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return the image."""
        return {"image": batch["image"]}


class Judged:
    """An evaluation whose answers are the held-out images with noise of a given size; see `diffloom.metric`.

    Args:
        cache: A folder for what metrics keep.
        space: Of the images.
        error: Standard deviation of the answers' noise.
        count: How many images are judged.
    """

    def __init__(self, cache: Path, space: Space, *, error: float = 0.1, count: int = 64) -> None:
        self.train: Dataset = Stripes(count=2 * count, space=space, seed=0)
        self.held_out: Dataset = Stripes(count=count, space=space, seed=1)
        plan = Plan(data_space=space)
        self.system = System(plan, autoencoder=PlainAutoencoder(channels=space.channels), task=_Echo()).eval()
        self.count, self.seed, self.cache, self.error = count, 0, cache, error

    def pairs(self) -> Iterator[tuple[Batch, Batch]]:
        """Yield (batch, answer)."""
        for place, batch in enumerate(self.real(self.held_out, self.count)):
            z = Noise(range(len(batch["image"]))).normal(batch["image"], "answer", place)
            yield batch, {"image": (batch["image"] + self.error * z).clamp(-1, 1)}

    def real(self, dataset: Dataset, count: int) -> Iterator[Batch]:
        """Yield batches of `dataset`, in order."""
        for start in range(0, min(count, len(dataset)), 32):
            yield collate([dataset.get(index) for index in range(start, min(start + 32, count, len(dataset)))])
