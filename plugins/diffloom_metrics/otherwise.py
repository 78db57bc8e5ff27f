"""Figures of other answers: what a metric would say of a trivial answer, or of the mean of many.

Law: a figure says whether a system is good only beside that of an answer that costs nothing, measured in the same way
on the same data. So each of these takes any other metrics, changes the answers, and adds to the names of their
figures whose they are: `psnr` is the system's, `psnr/bicubic` the enlargement's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.data import Dataset
from diffloom.errors import IncompatibleParts
from diffloom.metric import Evaluation, Metric
from diffloom.noise import mix
from diffloom.system import System
from diffloom_metrics.networks import JUDGES

SHUFFLED, UNCONDITIONAL, RECONSTRUCTED = "shuffled", "unconditional", "reconstructed"

Pairs = Callable[[], Iterator[tuple[Batch, Batch]]]


@runtime_checkable
class Guessing(Protocol):
    """A task that knows what could be answered without a network."""

    def guesses(self) -> Mapping[str, Callable[[Batch, Sequence[int]], Tensor]]:
        """Return by name functions of a batch and of the answer's size H, W, that give images (B, C, H, W)."""


@dataclass(eq=False)
class Otherwise:
    """An evaluation with other answers; see `diffloom.metric.Evaluation`.

    Attributes:
        inner: The evaluation itself.
        answers: Gives its batches with these answers; asked once, and kept for all that measure.
    """

    inner: Evaluation
    answers: Pairs
    _kept: list[tuple[Batch, Batch]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.system: System = self.inner.system
        self.train: Dataset = self.inner.train
        self.held_out: Dataset = self.inner.held_out
        self.count, self.seed = self.inner.count, self.inner.seed
        self.cache: Path = self.inner.cache

    def pairs(self) -> Iterator[tuple[Batch, Batch]]:
        """Yield (batch, other answer)."""
        if not self._kept:
            self._kept = list(self.answers())
        return iter(self._kept)

    def measured(self, metrics: Sequence[Metric], whose: str) -> dict[str, float]:
        """Return the figures of metrics as `NAME/WHOSE`; those of the judge itself are the same for everyone."""
        found = {name: value for metric in metrics for name, value in metric.measure(self).items()}
        return {name if name.startswith(JUDGES) else f"{name}/{whose}": value for name, value in found.items()}

    def real(self, dataset: Dataset, count: int) -> Iterator[Batch]:
        """Yield batches of a data set, as the evaluation itself does."""
        return self.inner.real(dataset, count)


class Baseline(Metric):
    """What other metrics say of a trivial answer, to hold a system's own figures against.

    Args:
        metrics: Measure.
        answer: What is measured in place of the system's answers. `shuffled`: each is judged as the answer to the
            next item of its batch, so that what was asked for has nothing to do with it; `unconditional`: the
            system's own with nothing said, where training dropped conditions; `reconstructed`: the real image through
            the autoencoder, which says what the latents can show at best; else a guess that the task knows, such as
            `bicubic` and `nearest` of super-resolution, `mean-fill` of inpainting or `source` of translation.
    """

    examples = ({"metrics": [{"type": "psnr"}], "answer": SHUFFLED},)

    def __init__(self, *, metrics: tuple[Metric, ...], answer: str) -> None:
        self.metrics, self.answer = metrics, answer

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return the metrics' figures as `NAME/ANSWER`.

        Raises:
            IncompatibleParts: There is no such answer to what the system is for.
        """
        known = {SHUFFLED: _shuffled, UNCONDITIONAL: _unconditional, RECONSTRUCTED: _reconstructed}
        answers = known.get(self.answer) or self._guessed
        return Otherwise(evaluation, lambda: answers(evaluation)).measured(self.metrics, self.answer)

    def _guessed(self, evaluation: Evaluation) -> Iterator[tuple[Batch, Batch]]:
        task = evaluation.system.task
        known = task.guesses() if isinstance(task, Guessing) else {}
        if self.answer not in known:
            raise IncompatibleParts(
                f"there is no trivial answer '{self.answer}'",
                where=f"the metric `baseline` with the task {type(task).__name__}",
                expected=", ".join((SHUFFLED, UNCONDITIONAL, RECONSTRUCTED, *known)),
                got=self.answer,
            )
        for batch, answer in evaluation.pairs():
            yield batch, {"image": known[self.answer](batch, answer["image"].shape[2:])}


class PosteriorMean(Metric):
    """What other metrics say of the mean of several answers to the same item, from other noise.

    A sampler draws from the posterior, and a draw's squared error is twice that of the posterior's mean, 3 dB of
    PSNR, even where nothing can be learned any more; the mean of n draws has 1 + 1/n times the least. So PSNR of this
    mean says how well a network knows what it is asked, where PSNR of a single answer punishes it for being sharp.

    Args:
        metrics: Measure; such of errors, as `psnr`.
        draws: n; the first is the answer that other metrics judge.
    """

    examples = ({"metrics": [{"type": "psnr"}], "draws": 2},)

    def __init__(self, *, metrics: tuple[Metric, ...], draws: Annotated[int, Field(gt=1)] = 8) -> None:
        self.metrics, self.draws = metrics, draws

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return the metrics' figures as `NAME/mean-of-N`."""
        answers = Otherwise(evaluation, lambda: self._means(evaluation))
        return answers.measured(self.metrics, f"mean-of-{self.draws}")

    def _means(self, evaluation: Evaluation) -> Iterator[tuple[Batch, Batch]]:
        done = 0
        for batch, answer in evaluation.pairs():
            total = answer["image"].double()
            for draw in range(1, self.draws):
                total = total + _again(evaluation, batch, draw, done)["image"].double()
            done += len(total)
            yield batch, {**answer, "image": (total / self.draws).to(answer["image"].dtype)}


def _again(evaluation: Evaluation, batch: Batch, draw: int, first: int) -> Batch:
    """Return other answers to a batch whose first item is number `first`, on the CPU."""
    seeds = [mix("again", evaluation.seed, draw, first + i) for i in range(len(batch["image"]))]
    return {key: value.cpu() for key, value in evaluation.system.predict(batch, seeds=seeds).items()}


def _shuffled(evaluation: Evaluation) -> Iterator[tuple[Batch, Batch]]:
    for batch, answer in evaluation.pairs():
        yield batch, {key: torch.roll(value, 1, 0) for key, value in answer.items()}


def _reconstructed(evaluation: Evaluation) -> Iterator[tuple[Batch, Batch]]:
    system = evaluation.system
    for batch, _ in evaluation.pairs():
        with torch.inference_mode():
            image = system.autoencoder.decode(system.autoencoder.encode(batch["image"].to(system.device)).mode())
        yield batch, {"image": image.clamp(-1, 1).cpu()}


def _unconditional(evaluation: Evaluation) -> Iterator[tuple[Batch, Batch]]:
    done = 0
    for batch, _ in evaluation.pairs():
        with _untold(evaluation.system):
            answer = _again(evaluation, batch, 0, done)
        done += len(batch["image"])
        yield batch, answer


@contextmanager
def _untold(system: System) -> Iterator[None]:
    """Within the context no conditioner has a say: every guidance scale is 0."""
    plan = system.plan
    undropped = [name for name in system.conditioners if not plan.conditioning[name].drop]
    if undropped or not system.conditioners:
        raise IncompatibleParts(
            "the network never learned to answer when nothing is said" if undropped else "nothing is ever said",
            where="the metric `baseline`",
            expected="conditioners with `drop`",
            got=", ".join(undropped) or "no conditioners",
            remedy=f"train with conditioners.{undropped[0]}.drop: 0.1" if undropped else "leave `unconditional` out",
        )
    silent = {name: replace(each, guidance=0.0) for name, each in plan.conditioning.items()}
    system.plan = replace(plan, conditioning=silent)
    try:
        yield
    finally:
        system.plan = plan
