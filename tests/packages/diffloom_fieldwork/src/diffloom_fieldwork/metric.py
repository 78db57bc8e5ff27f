"""Whether what was made is as green as it was asked to be."""

import torch
from torch import Tensor

from diffloom import Metric
from diffloom.metric import Evaluation


class NDVI(Metric):
    """Mean absolute error of an image's mean NDVI, (nir − red)/(nir + red), against the real image of the same day.

    Args:
        red: Index of the red band.
        nir: Index of the near infrared band.
    """

    def __init__(self, *, red: int = 0, nir: int = 1) -> None:
        self.red, self.nir = red, nir

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `ndvi_error`, 0 at best."""
        errors = [self.index(made["image"]) - self.index(batch["image"]) for batch, made in evaluation.pairs()]
        return {"ndvi_error": float(torch.cat(errors).abs().mean())}

    def index(self, image: Tensor) -> Tensor:
        """Return the mean NDVI (B,) of images (B, C, H, W) in [−1, 1]."""
        red, nir = (image[:, band].double().add(1).clamp(min=0.02) for band in (self.red, self.nir))
        return ((nir - red) / (nir + red)).flatten(1).mean(1)
