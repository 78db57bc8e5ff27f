"""Fusion: the figures by which fused images are compared, all of them at once."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.errors import DataError, IncompatibleParts
from diffloom.metric import Evaluation, Metric
from diffloom_fusion import measures
from diffloom_metrics.colour_difference import cie76, ciede2000, lab
from diffloom_metrics.fidelity import ssim

Of = Callable[[Tensor], Tensor]
FromSources = Callable[[Tensor, Sequence[Tensor]], Tensor]

_OF_FUSED: dict[str, Of] = {
    "en": measures.entropy,
    "sd": measures.deviation,
    "sf": measures.spatial_frequency,
    "ag": measures.average_gradient,
}
_FROM_SOURCES: dict[str, FromSources] = {
    "mi": measures.mutual_information,
    "scd": measures.difference_correlation,
    "vif": measures.information_fidelity,
    "qabf": measures.edge_transfer,
}
_SSIM_SIDE = 11


class Fusion(Metric):
    """What a fused image shows and what it kept of its sources: means over images of each one's own figure.

    `en`, `sd`, `sf`, `ag` are of the fused image alone, and noise raises all four; `mi`, `scd`, `vif`, `qabf` and
    `ssim` (the mean over sources) say what came from the sources, `delta-e` (CIEDE2000) and `delta-e-76` how far the
    colours moved away from those of `colour`. All are of grey images in 0 … 255 but the last two; VIF and MI are sums
    over the sources. A figure that is undefined is no number.

    Args:
        sources: Keys of the modalities in the batch.
        colour: Key of the modality whose colours should be kept; three channels, or one taken as grey.
        prediction: Key of the fused image in the answers.
    """

    examples: ClassVar[tuple[dict[str, object], ...]] = ({"sources": ("image",), "colour": "image"}, {})

    def __init__(
        self,
        *,
        sources: tuple[str, ...] = ("visible", "infrared"),
        colour: str = "visible",
        prediction: str = "image",
    ) -> None:
        self.sources = sources
        self.colour = colour
        self.prediction = prediction

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return every figure, as `fusion/NAME`.

        Raises:
            IncompatibleParts: The task does not answer the batch's own images, or the data have other modalities.
        """
        if not evaluation.system.task.paired:
            raise IncompatibleParts(
                "there is nothing that was fused",
                where=f"the task {type(evaluation.system.task).__name__}",
                expected="a task that fuses the batch's own images",
            )
        rows: dict[str, list[Tensor]] = {}
        for batch, answer in evaluation.pairs():
            given = {key: self._image(batch, key) for key in (*self.sources, self.colour)}
            found = figures(answer[self.prediction], [given[key] for key in self.sources], given[self.colour])
            for name, values in found.items():
                rows.setdefault(name, []).append(values)
        return {f"fusion/{name}": float(torch.cat(values).mean()) for name, values in rows.items()}

    def _image(self, batch: Batch, key: str) -> Tensor:
        image = batch.get(key)
        if not isinstance(image, Tensor):
            raise IncompatibleParts(
                f"the data have no modality '{key}'",
                where="the metric `fusion`",
                got=f"the keys {', '.join(batch)}",
                remedy="set the metric's `sources` and `colour` to keys that exist",
            )
        return image


@torch.no_grad()
def figures(fused: Tensor, sources: Sequence[Tensor], colour: Tensor) -> dict[str, Tensor]:
    """Return each image's figures, name → (B,) float64.

    Args:
        fused: (B, C, H, W) in [−1, 1].
        sources: Each (B, any, H, W) in [−1, 1].
        colour: (B, 1 or 3, H, W) in [−1, 1]; with another number of channels, or fused images of another, the colour
            differences are NaN.

    Raises:
        DataError: Fused and sources differ in size.
    """
    for source in sources:
        if source.shape[-2:] != fused.shape[-2:]:
            raise DataError(
                "a fused image and its source differ in size",
                expected="×".join(map(str, source.shape[-2:])),
                got="×".join(map(str, fused.shape[-2:])),
            )
    f, given = measures.grey(fused), [measures.grey(source) for source in sources]
    found = {name: of(f) for name, of in _OF_FUSED.items()}
    found |= {name: of(f, given) for name, of in _FROM_SOURCES.items()}
    found["ssim"] = _similarity(f, given)
    return found | _colours(fused, colour)


def _similarity(fused: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """Return the mean over sources of SSIM; NaN for sides below its window."""
    if min(fused.shape[1:]) < _SSIM_SIDE:
        return fused.new_full((len(fused),), torch.nan)
    signed = fused[:, None] / 127.5 - 1
    return torch.stack([ssim(signed, source[:, None] / 127.5 - 1) for source in sources]).mean(0)


def _colours(fused: Tensor, colour: Tensor) -> dict[str, Tensor]:
    """Return the mean colour differences of each image."""
    if not {fused.shape[1], colour.shape[1]} <= {1, 3}:
        undefined = fused.new_full((len(fused),), torch.nan, dtype=torch.float64)
        return {"delta-e": undefined, "delta-e-76": undefined}
    pair = [lab(image.clamp(-1, 1).expand(-1, 3, -1, -1)) for image in (fused, colour)]
    return {"delta-e": ciede2000(*pair).flatten(1).mean(1), "delta-e-76": cie76(*pair).flatten(1).mean(1)}
