"""FID, KID and inception score: how alike made images and real ones are as sets, seen through a network.

The figures depend on the network, on the number of images and on how they are resized: compare only figures with
the same name, of the same count. For small sets KID is the figure to trust: it is unbiased.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.errors import DataError
from diffloom.metric import Evaluation, Metric
from diffloom.noise import mix
from diffloom_metrics.distances import frechet_distance, inception_score, moments, polynomial_mmd
from diffloom_metrics.networks import Network, NetworkName, open_network, verify

_logger = logging.getLogger(__name__)


class SetMetric(Metric):
    """Base of the metrics over sets.

    Args:
        network: Looks at the images: `classifier`, trained on the run's own labelled data, or `timm:NAME`.
        weights: The file with the weights of `timm:NAME`; nothing is downloaded.
    """

    def __init__(self, *, network: str, weights: Path | None) -> None:
        self.network = network
        self.weights = verify(network, weights)

    def open(self, evaluation: Evaluation) -> Network:
        """Return the network."""
        return open_network(self.network, self.weights, evaluation)


class FID(SetMetric):
    """Fréchet inception distance: 0 for equal Gaussians; its bias is positive and falls as one over the count.

    Args:
        network: Looks at the images: `classifier`, trained on the run's own labelled data, or `timm:NAME`.
        weights: The file with the weights of `timm:NAME`; nothing is downloaded.
        against: The real images; as many as are judged, or all where there are fewer.
    """

    def __init__(
        self,
        *,
        network: NetworkName = "classifier",
        weights: Path | None = None,
        against: Literal["train", "held_out"] = "train",
    ) -> None:
        super().__init__(network=network, weights=weights)
        self.against = against

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `fid/NETWORK`."""
        network = self.open(evaluation)
        made, real = both(evaluation, network, self.against)
        if min(len(made), len(real)) <= made.shape[1]:
            _logger.warning(
                "fid: %d made and %d real images are too few for a covariance of %d features; trust kid",
                len(made),
                len(real),
                made.shape[1],
            )
        distance = frechet_distance(*moments(made), *moments(real))
        return {f"fid/{network.name}": distance, **network.figures}


class KID(SetMetric):
    """Kernel inception distance, mean and deviation over random subsets; unbiased, so it can be negative.

    Args:
        network: Looks at the images: `classifier`, trained on the run's own labelled data, or `timm:NAME`.
        weights: The file with the weights of `timm:NAME`; nothing is downloaded.
        against: The real images; as many as are judged, or all where there are fewer.
        subsets: How many pairs of subsets are compared.
        subset_size: Images in each, but at most half of those there are, so that subsets differ.
    """

    def __init__(
        self,
        *,
        network: NetworkName = "classifier",
        weights: Path | None = None,
        against: Literal["train", "held_out"] = "train",
        subsets: Annotated[int, Field(gt=0)] = 100,
        subset_size: Annotated[int, Field(gt=1)] = 1000,
    ) -> None:
        super().__init__(network=network, weights=weights)
        self.against = against
        self.subsets = subsets
        self.subset_size = subset_size

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `kid/NETWORK` and `kid_std/NETWORK`."""
        network = self.open(evaluation)
        made, real = both(evaluation, network, self.against)
        size = min(self.subset_size, max(2, min(len(made), len(real)) // 2))
        generator = torch.Generator().manual_seed(mix("kid", evaluation.seed))
        found = torch.tensor(
            [
                polynomial_mmd(*(x[torch.randperm(len(x), generator=generator)[:size]] for x in (made, real)))
                for _ in range(self.subsets)
            ],
            dtype=torch.float64,
        )
        return {
            f"kid/{network.name}": float(found.mean()),
            f"kid_std/{network.name}": float(found.std(correction=0)),
            **network.figures,
        }


class InceptionScore(SetMetric):
    """Inception score, mean and deviation over splits: 1 (nothing is recognised) to the number of classes.

    Args:
        network: Looks at the images: `classifier`, trained on the run's own labelled data, or `timm:NAME`.
        weights: The file with the weights of `timm:NAME`; nothing is downloaded.
        splits: Parts that the images, shuffled, are divided into; fewer where there are fewer images.
    """

    def __init__(
        self,
        *,
        network: NetworkName = "classifier",
        weights: Path | None = None,
        splits: Annotated[int, Field(gt=0)] = 10,
    ) -> None:
        super().__init__(network=network, weights=weights)
        self.splits = splits

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `inception-score/NETWORK` and `inception-score_std/NETWORK`."""
        network = self.open(evaluation)
        found = torch.cat([network.probabilities(images) for images in made_images(evaluation)])
        generator = torch.Generator().manual_seed(mix("inception-score", evaluation.seed))
        shuffled = found[torch.randperm(len(found), generator=generator)]
        parts = torch.tensor_split(shuffled, min(self.splits, len(shuffled)))
        scores = torch.tensor([inception_score(part) for part in parts], dtype=torch.float64)
        return {
            f"inception-score/{network.name}": float(scores.mean()),
            f"inception-score_std/{network.name}": float(scores.std(correction=0)),
            **network.figures,
        }


def made_images(evaluation: Evaluation) -> Iterator[Tensor]:
    """Yield the predicted images, (B, C, H, W), held to [−1, 1]."""
    for _, answer in evaluation.pairs():
        yield answer["image"].float().clamp(-1, 1)


def both(evaluation: Evaluation, network: Network, against: str) -> tuple[Tensor, Tensor]:
    """Return the features of made and of real images, float64 (N, d) and (M, d).

    Raises:
        DataError: There are fewer than two of either.
    """
    made = torch.cat([network.features(images) for images in made_images(evaluation)])
    dataset = evaluation.train if against == "train" else evaluation.held_out
    batches = evaluation.real(dataset, min(len(made), len(dataset)))
    real = torch.cat([network.features(batch["image"].float()) for batch in batches])
    if min(len(made), len(real)) < 2:
        raise DataError(
            "two images of each kind are the least that can be compared",
            got=f"{len(made)} made and {len(real)} real ones",
            remedy="raise the number of images to judge",
        )
    return made, real
