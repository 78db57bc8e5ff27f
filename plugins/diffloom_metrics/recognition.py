"""Accuracy: does a classifier of the real data recognise in the made images what was asked for?"""

import logging

from diffloom.errors import IncompatibleParts
from diffloom.metric import Evaluation, Metric
from diffloom_metrics.networks import TrainedNetwork, trained_classifier

_logger = logging.getLogger(__name__)


class Accuracy(Metric):
    """Share of images in which the classifier sees the class that was asked for.

    The classifier is trained on the run's own labelled data; its accuracy on real images that it has not seen is
    what a perfect system could reach, and is reported with the figure.
    """

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `accuracy` and `classifier/accuracy`.

        Raises:
            IncompatibleParts: The data have no labels, so nothing was asked for.
        """
        network = TrainedNetwork(trained_classifier(evaluation), evaluation.system.device)
        hits, count = 0, 0
        for batch, answer in evaluation.pairs():
            if "label" not in batch:
                raise IncompatibleParts(
                    "no class was asked for",
                    where="the metric `accuracy`",
                    expected="a `label` in every batch that is judged",
                    got=f"the keys {', '.join(batch)}",
                    remedy="evaluate on labelled data, or leave the metric out",
                )
            seen = network.probabilities(answer["image"].float().clamp(-1, 1)).argmax(dim=1)
            hits += int((seen == batch["label"].cpu()).sum())
            count += len(seen)
        share = hits / count if count else float("nan")
        _logger.info("%.1f %% of %d images show the class asked for", 100 * share, count)
        return {"accuracy": share, **network.figures}
