"""PSNR and SSIM: how close restored images come to the true ones.

Law: both are computed for each image, in float64, and then averaged, as papers mostly do; predictions are held
to [−1, 1] first.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.errors import DataError, IncompatibleParts
from diffloom.metric import Evaluation, Metric
from diffloom.vision_compat import ensure_torchvision

ensure_torchvision()  # torchmetrics imports torchvision where it is installed, in good order or not

from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: E402

Channel = Literal["all", "y"]

_RANGE, _WINDOW = 2.0, 11
_TO_Y, _BLACK = (65.481, 128.553, 24.966), 16.0


def psnr(prediction: Tensor, target: Tensor, *, within: Tensor | None = None) -> Tensor:
    """Return 10 log₁₀(2² / mean squared error) of each image in dB, float64 (B,); ∞ for equal images.

    Args:
        prediction: (B, C, H, W) in [−1, 1].
        target: (B, C, H, W) in [−1, 1].
        within: (B, 1, H, W), above ½ at the pixels that count; all by default. ∞ where an image has none.
    """
    squared = (prediction.double() - target.double()).square().mean(1, keepdim=True)
    counted = torch.ones_like(squared) if within is None else (within > 0.5).to(squared)
    error = (squared * counted).sum((1, 2, 3)) / counted.sum((1, 2, 3)).clamp(min=1)
    return 10 * torch.log10(_RANGE**2 / error)


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the structural similarity of each image, float64 (B,) (Wang et al. 2004).

    Gaussian window of 11×11, σ = 1.5, K = (0.01, 0.03), over all pixels with reflected borders, mean over
    channels. It changes when a constant is added, so images are brought to [0, 1], where papers compute it.

    Args:
        prediction: (B, C, H, W) in [−1, 1], sides of at least 11.
        target: (B, C, H, W) in [−1, 1].
    """
    if min(target.shape[-2:]) < _WINDOW:
        raise DataError(
            "the images are too small for the structural similarity",
            where="the metric `ssim`",
            expected=f"sides of at least {_WINDOW}",
            got="×".join(map(str, target.shape[-2:])),
            remedy="leave the metric out",
        )
    pair = prediction.double().add(1).div(2), target.double().add(1).div(2)
    found = structural_similarity_index_measure(*pair, data_range=1.0, reduction="none")
    return found if isinstance(found, Tensor) else found[0]


def luma(image: Tensor) -> Tensor:
    """Return Y of the broadcasting standard (ITU-R BT.601), black at 16 and white at 235 of 255, (B, 1, H, W).

    Super-resolution is judged by it since its first papers.

    Args:
        image: Red, green and blue, (B, 3, H, W) in [−1, 1].

    Raises:
        IncompatibleParts: There are not three channels.
    """
    if image.shape[1] != len(_TO_Y):
        raise IncompatibleParts(
            "only red, green and blue have a luma",
            where="the metric's `channel`",
            expected="images of 3 channels",
            got=str(image.shape[1]),
            remedy="set `channel: all`",
        )
    rgb = image.double().add(1).div(2)
    y = (rgb * rgb.new_tensor(_TO_Y).view(1, -1, 1, 1)).sum(1, keepdim=True) + _BLACK
    return y / 255 * 2 - 1


class PSNR(Metric):
    """Peak signal-to-noise ratio in dB, the mean over images of each image's own.

    Args:
        prediction: Key of the image in the prediction.
        target: Key of the true image in the batch.
        cap: What an image counts that is restored exactly, or better than this, in dB.
        channel: all together, or the luma alone, `y`.
        within: Where the batch has a mask (B, 1, H, W): only pixels where it is above ½ count, such as those that
            were to be made. An image without any counts as restored exactly.
    """

    def __init__(
        self,
        *,
        prediction: str = "image",
        target: str = "image",
        cap: Annotated[float, Field(gt=0)] = 100.0,
        channel: Channel = "all",
        within: str | None = None,
    ) -> None:
        self.keys = (prediction, target)
        self.cap = cap
        self.channel = channel
        self.within = within

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `psnr`, or `psnr-y`; followed by `:MASK` where only what is within counts."""

        def figure(x: Tensor, y: Tensor) -> Tensor:
            return psnr(*_seen(x, y, self.channel)).clamp(max=self.cap)

        def inside(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
            return psnr(*_seen(x, y, self.channel), within=mask).clamp(max=self.cap)

        name = _named("psnr", self.channel)
        if self.within is None:
            return {name: mean_over_pairs(evaluation, self.keys, figure)}
        return {f"{name}:{self.within}": mean_over_pairs(evaluation, self.keys, inside, self.within)}


class SSIM(Metric):
    """Structural similarity, the mean over images; 1 for equal images.

    Args:
        prediction: Key of the image in the prediction.
        target: Key of the true image in the batch.
        channel: all together, or the luma alone, `y`.
    """

    def __init__(self, *, prediction: str = "image", target: str = "image", channel: Channel = "all") -> None:
        self.keys = (prediction, target)
        self.channel = channel

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `ssim`, or `ssim-y`."""

        def figure(x: Tensor, y: Tensor) -> Tensor:
            return ssim(*_seen(x, y, self.channel))

        return {_named("ssim", self.channel): mean_over_pairs(evaluation, self.keys, figure)}


def _seen(x: Tensor, y: Tensor, channel: Channel) -> tuple[Tensor, Tensor]:
    return (x, y) if channel == "all" else (luma(x), luma(y))


def _named(figure: str, channel: Channel) -> str:
    return figure if channel == "all" else f"{figure}-{channel}"


def mean_over_pairs(
    evaluation: Evaluation, keys: tuple[str, str], figure: Callable[..., Tensor], *beside: str
) -> float:
    """Return the mean over all images of `figure(prediction, target) -> (B,)`; NaN where there are none.

    Args:
        evaluation: Whose predictions are compared with the truth.
        keys: Where the prediction and the batch have the images, (B, C, H, W).
        figure: Computes one number for each image, of values held to [−1, 1].
        *beside: Where the batch has what `figure` is given besides, such as a mask.

    Raises:
        IncompatibleParts: The task makes new images, which have no true counterpart.
        DataError: A key is missing, or the images' shapes differ.
    """
    if not evaluation.system.task.paired:
        raise IncompatibleParts(
            "there is no true image to compare with",
            where=f"the task {type(evaluation.system.task).__name__}",
            expected="a task whose predictions answer the batch's own images",
            remedy="use `fid`, `kid` or `accuracy` for newly made images",
        )
    total, count = 0.0, 0
    for batch, answer in evaluation.pairs():
        prediction, target = _image(answer, keys[0], "prediction"), _image(batch, keys[1], "batch")
        if prediction.shape != target.shape:
            raise DataError(
                "prediction and true image differ in shape",
                expected=f"{tuple(target.shape)} as under {keys[1]!r} of the batch",
                got=f"{tuple(prediction.shape)} under {keys[0]!r} of the prediction",
            )
        held = prediction.clamp(-1, 1).to(target.device)
        with torch.inference_mode():
            total += float(figure(held, target.clamp(-1, 1), *(_image(batch, key, "batch") for key in beside)).sum())
        count += len(target)
    return total / count if count else float("nan")


def _image(batch: Batch, key: str, kind: str) -> Tensor:
    image = batch.get(key)
    if not isinstance(image, Tensor):
        raise DataError(
            f"the {kind} has no image {key!r}",
            got=f"the keys {', '.join(batch)}",
            remedy="set the metric's keys (`prediction`, `target`, `within`) to some that exist",
        )
    return image
