"""Mask IoU: does a segmenter of the real data find in the made images what was asked to stand where?"""

from typing import Annotated
from weakref import WeakKeyDictionary

import torch
from pydantic import Field

from diffloom.data import Dataset
from diffloom.errors import IncompatibleParts
from diffloom.metric import Evaluation, Metric
from diffloom_metrics.segmenter import Confusion, Masked, Segmenter, found_masks, small_masks, train_or_load

_MOST, _LEAST = 2048, 16
_trained: WeakKeyDictionary[Evaluation, tuple[Segmenter, float]] = WeakKeyDictionary()


class MaskIoU(Metric):
    """How well the masks that were asked for, or boxes made of them, can be found again in the answers.

    A small segmenter learns masks from the run's own training data. What it finds in the answers is compared with the
    masks of the items that were asked for: intersection over union, the mean over classes, from the counts of the
    whole set. Its IoU on real held-out images is what a perfect system could reach, and is reported with the figure;
    `baseline` with `answer: shuffled` says what answers reach that were asked for something else.

    Args:
        classes: How many classes there are.
        ignore: Numbers in masks that are no class, such as that of "unknown".
        key: Where a batch has the mask of class numbers, (B, 1, H, W) or (B, H, W).
    """

    def __init__(
        self, *, classes: Annotated[int, Field(gt=1)], ignore: tuple[int, ...] = (), key: str = "mask"
    ) -> None:
        self.classes, self.ignore, self.key = classes, ignore, key

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `mask-iou`, `mask-accuracy` (the share of pixels) and `segmenter/iou`.

        Raises:
            IncompatibleParts: The data have no masks, or other classes.
        """
        network, iou = self._judge(evaluation)
        total = Confusion(torch.zeros(self.classes, self.classes, dtype=torch.int64))
        for batch, answer in evaluation.pairs():
            asked = self._checked(small_masks(batch, self.key, self.ignore))
            total += Confusion.of(found_masks(network, answer["image"]), asked, self.classes)
        return {"mask-iou": total.iou(), "mask-accuracy": total.accuracy(), "segmenter/iou": iou}

    def _judge(self, evaluation: Evaluation) -> tuple[Segmenter, float]:
        if evaluation not in _trained:
            train = self._masked(evaluation, evaluation.train)
            test = self._masked(evaluation, evaluation.held_out)
            device = evaluation.system.device
            _trained[evaluation] = train_or_load(train, test, self.classes, evaluation.cache, device)
        return _trained[evaluation]

    def _masked(self, evaluation: Evaluation, data: Dataset) -> Masked:
        if self.key not in data.holds or len(data) < _LEAST:
            raise IncompatibleParts(
                "there are no masks to train a segmenter on",
                where=f"the data set {type(data).__name__}",
                expected=f"at least {_LEAST} samples with '{self.key}'",
                got=f"{len(data)} samples with {', '.join(data.holds)}",
                remedy="name the metric's `key`, or leave it out",
            )
        found = Masked.collect(evaluation.real(data, min(_MOST, len(data))), self.key, self.ignore)
        self._checked(found.masks)
        return found

    def _checked(self, masks: torch.Tensor) -> torch.Tensor:
        if int(masks.max()) >= self.classes:
            raise IncompatibleParts(
                "the masks have other classes",
                where="the metric `mask-iou`",
                expected=f"numbers below `classes`, {self.classes}",
                got=str(int(masks.max())),
                remedy="raise `classes`, or name the number in `ignore`",
            )
        return masks
