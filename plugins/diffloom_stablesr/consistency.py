"""Consistency: does an enlarged image, made small again, look like what was given?"""

import torch
from torch import Tensor
from torch.nn import functional

from diffloom.errors import DataError
from diffloom.metric import Evaluation, Metric
from diffloom_metrics.fidelity import psnr

_MOST = 100.0


class Consistency(Metric):
    """PSNR between the answer, reduced by a bicubic antialiased filter, and the small image, in dB.

    Where the small image was damaged on purpose, a faithful answer is not reduced to the damage, and the figure
    says little beyond gross colour and structure.

    Args:
        prediction: Key of the image in the prediction.
        given: Key of the small image in the batch.
    """

    def __init__(self, *, prediction: str = "image", given: str = "low_res") -> None:
        self.prediction, self.given = prediction, given

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `consistency`, the mean over images of each one's own figure, at most 100; NaN where there are none.

        Raises:
            DataError: A key is missing.
        """
        found: list[Tensor] = []
        for batch, answer in evaluation.pairs():
            for key, where in ((self.prediction, answer), (self.given, batch)):
                if not isinstance(where.get(key), Tensor):
                    raise DataError(
                        f"there is no image {key!r} to compare",
                        where="the metric `consistency`",
                        got=f"the keys {', '.join(where)}",
                        remedy="set `prediction` and `given` to keys that exist",
                    )
            found.append(consistency(answer[self.prediction], batch[self.given]))
        return {"consistency": float(torch.cat(found).mean()) if found else float("nan")}


def consistency(image: Tensor, given: Tensor) -> Tensor:
    """Return the PSNR of each reduced image, float64 (B,), at most 100 dB.

    Args:
        image: (B, C, H, W) in [−1, 1].
        given: (B, C, h, w) in [−1, 1].
    """
    small = functional.interpolate(image.float(), given.shape[2:], mode="bicubic", antialias=True)
    return psnr(small.clamp(-1, 1).to(given.device), given).clamp(max=_MOST)
