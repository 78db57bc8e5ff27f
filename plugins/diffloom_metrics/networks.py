"""Networks that look at images for the metrics over sets: what `network:` of `fid`, `kid` and others names.

`classifier` is trained on the run's own labelled data. `timm:NAME` is an architecture of timm with weights from a
file. Nothing is ever downloaded. Figures of different networks cannot be compared, so each names its network.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from torch import Tensor

from diffloom.data import Dataset
from diffloom.errors import CheckpointError, IncompatibleParts
from diffloom.metric import Evaluation
from diffloom_metrics.classifier import Labelled, Trained, train_or_load

NETWORK = r"^(classifier|timm:\S+)$"
NetworkName = Annotated[str, Field(pattern=NETWORK)]
JUDGES = ("classifier/", "segmenter/")
"""Begin the names of figures about a network that judges, not about what is judged."""

_TIMM = "timm:"
_LEAST, _MOST = 32, 4096
_trained: WeakKeyDictionary[Evaluation, Trained] = WeakKeyDictionary()


class Network(ABC):
    """A network that describes and classifies images.

    Attributes:
        name: Stands beside every figure made with it.
        figures: What is worth knowing about it, reported together with the metric.
    """

    name: str
    figures: Mapping[str, float]

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Return float64 (N, d) on the CPU for images (N, C, H, W) in [−1, 1]."""

    @abstractmethod
    def probabilities(self, images: Tensor) -> Tensor:
        """Return float64 (N, K) on the CPU, rows of sum 1, for images (N, C, H, W) in [−1, 1]."""

    @abstractmethod
    def maps(self, images: Tensor) -> list[Tensor]:
        """Return maps (N, c, h, w) of growing depth on the CPU for images (N, C, H, W) in [−1, 1]."""


class TrainedNetwork(Network):
    """The classifier of the run's own data.

    Args:
        trained: With what is known of it.
        device: Where it is.
    """

    name = "classifier"

    def __init__(self, trained: Trained, device: torch.device) -> None:
        self.figures = {"classifier/accuracy": trained.accuracy}
        self._channels = trained.channels
        self._network = trained.network
        self._device = device

    def features(self, images: Tensor) -> Tensor:
        """Return the pooled features, d = 64."""
        with torch.inference_mode():
            return self._network.features(self._moved(images)).double().cpu()

    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probabilities of the data's classes."""
        with torch.inference_mode():
            logits: Tensor = self._network(self._moved(images))
        return logits.double().softmax(dim=1).cpu()

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps after each of the four activations."""
        with torch.inference_mode():
            return [found.cpu() for found in self._network.maps(self._moved(images))]

    def _moved(self, images: Tensor) -> Tensor:
        if images.shape[1] != self._channels:
            raise IncompatibleParts(
                "the made images are of another kind than the classifier's",
                where=f"the network {self.name}",
                expected=f"{self._channels} channels, as in the data",
                got=str(images.shape[1]),
            )
        return images.to(self._device)


def verify(network: str, weights: Path | None) -> Path | None:
    """Return the file of weights with `~` and environment variables replaced, before anything is computed.

    Raises:
        CheckpointError: There is no such file, or none is named where one is needed.
        IncompatibleParts: Weights are named for a network that is trained.
    """
    where = f"the network {network}"
    if not network.startswith(_TIMM):
        if weights is not None:
            raise IncompatibleParts(
                "the classifier is trained on the run's data and takes no weights",
                where=where,
                remedy="leave out `weights`, or set `network: timm:NAME`",
            )
        return None
    if weights is None:
        raise CheckpointError(
            "no weights are named",
            where=where,
            expected="`weights: FILE`, .safetensors or a state dictionary saved with torch.save",
            remedy="nothing is downloaded: fetch the file and name it, or set `network: classifier`",
        )
    file = Path(os.path.expandvars(weights)).expanduser()
    if not file.is_file():
        raise CheckpointError(
            f"the file of weights {file} does not exist",
            where=where,
            remedy="nothing is downloaded: fetch the file and name it, or set `network: classifier`",
        )
    return file


def open_network(network: str, weights: Path | None, evaluation: Evaluation) -> Network:
    """Return the network that a metric names.

    Args:
        network: `classifier` or `timm:NAME`.
        weights: The file of weights that `timm:NAME` needs.
        evaluation: Whose data the classifier learns.

    Raises:
        CheckpointError: The weights cannot be used.
        IncompatibleParts: The data have no labels for the classifier to learn, or do not suit the network.
    """
    file = verify(network, weights)
    if file is None:
        return TrainedNetwork(trained_classifier(evaluation), evaluation.system.device)
    from diffloom_metrics.timm_network import TimmNetwork  # timm takes seconds to import

    return TimmNetwork(network.removeprefix(_TIMM), file, evaluation.system.device)


def trained_classifier(evaluation: Evaluation) -> Trained:
    """Return the classifier of an evaluation's data, trained at the first call and kept in its cache.

    It learns `train` and is judged by `held_out`; where that is the same data, by a fifth that it does not learn.
    At most 4096 items of each are used.

    Raises:
        IncompatibleParts: The data have no labels.
    """
    if evaluation not in _trained:
        classes = _classes(evaluation)
        train = _labelled(evaluation, evaluation.train)
        if evaluation.held_out is evaluation.train or "label" not in evaluation.held_out.keys:
            train, test = train.divided()
        else:
            test = _labelled(evaluation, evaluation.held_out)
        device = evaluation.system.device
        _trained[evaluation] = train_or_load(train, test, classes, evaluation.cache, device)
    return _trained[evaluation]


def _classes(evaluation: Evaluation) -> int:
    """Return how many classes the data have."""
    dataset, held_out = evaluation.train, evaluation.held_out
    if "label" in held_out.keys and tuple(held_out.classes) != tuple(dataset.classes):
        raise IncompatibleParts(
            "the held-out data have other classes than the data trained on",
            expected=", ".join(dataset.classes),
            got=", ".join(held_out.classes),
            remedy="use two parts of one data set (`split: train` and `split: test`)",
        )
    if "label" not in dataset.keys or len(dataset.classes) < 2:
        raise IncompatibleParts(
            "there are no labels to train a classifier on",
            where=f"the data set {type(dataset).__name__}",
            expected="samples with a `label`, of at least 2 classes",
            got=f"the keys {', '.join(dataset.keys)} and {len(dataset.classes)} classes",
            remedy="use labelled data (`labels: folders`), or set `network: timm:NAME` and `weights: FILE`",
        )
    return len(dataset.classes)


def _labelled(evaluation: Evaluation, dataset: Dataset) -> Labelled:
    if len(dataset) < _LEAST:
        raise IncompatibleParts(
            "the data are too few for a classifier",
            where=f"the data set {type(dataset).__name__}",
            expected=f"at least {_LEAST} images",
            got=str(len(dataset)),
            remedy="set `network: timm:NAME` and `weights: FILE`",
        )
    return Labelled.collect(evaluation.real(dataset, min(_MOST, len(dataset))))
