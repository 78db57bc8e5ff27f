"""Spread: how much the images of a set differ from each other, made and real; a model that repeats itself has little.

    spread = √(mean over pixels of the variance over images)

Law: 0 for a set of equal images; unchanged by the order of the images and by a constant added to all.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from diffloom import Metric
from diffloom.conditioner import Batch
from diffloom.metric import Evaluation


class Spread(Metric):
    """The spread of the made images, and that of as many held-out ones.

    Args:
        key: The images' key, in predictions and in batches.
    """

    def __init__(self, *, key: str = "image") -> None:
        self.key = key

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `spread` and `spread_real`; NaN where there are no images."""
        made = spread(self._images(answer for _, answer in evaluation.pairs()))
        real = spread(self._images(evaluation.real(evaluation.held_out, evaluation.count)))
        return {"spread": made, "spread_real": real}

    def _images(self, batches: Iterable[Batch]) -> list[Tensor]:
        return [batch[self.key].detach().cpu() for batch in batches]


def spread(batches: list[Tensor]) -> float:
    """Return the spread of images, batches (B, C, H, W) of one shape; NaN where there are none."""
    if not batches:
        return float("nan")
    return float(torch.cat(batches).double().var(dim=0, correction=0).mean().sqrt())
