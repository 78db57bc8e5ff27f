"""HintAgreement: does an answer have the edges, lines or strokes that were asked for?"""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom.data import Transform
from diffloom.errors import IncompatibleParts
from diffloom.metric import Evaluation, Metric


class HintAgreement(Metric):
    """How well the hints that were asked for are found again in the answers, by the transform that makes them.

    With a the asked map, f the one found, and ⊕ what lies within the tolerance: precision is Σ f·(a⊕) / Σ f, recall
    Σ a·(f⊕) / Σ a, over all pixels of all items, and the figure is their harmonic mean F₁, as for the edges of the
    Berkeley benchmark (Martin, Fowlkes & Malik 2004) but without its one-to-one matching. `baseline` with `answer:
    shuffled` says what answers reach that were asked for something else, which is far from 0 where maps are dense; with
    `answer: reconstructed`, what the latents could show at best.

    Args:
        hint: The transform, such as `{type: canny}`, as the held-out data have it.
        tolerance: How many pixels away counts as the same place.
    """

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"hint": {"type": "canny"}}, {"hint": {"type": "sobel"}})

    def __init__(self, *, hint: Transform, tolerance: Annotated[int, Field(ge=0)] = 1) -> None:
        self.hint, self.tolerance = hint, tolerance

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `hint-f1`, `hint-precision` and `hint-recall`; NaN where nothing is asked for, or found.

        Raises:
            IncompatibleParts: The transform adds no map, or adds several.
        """
        if len(self.hint.adds) != 1:
            raise IncompatibleParts(
                "this is no hint",
                where="the metric `hint-agreement`",
                expected="a transform that adds one map",
                got=f"{type(self.hint).__name__}, which adds {', '.join(self.hint.adds) or 'nothing'}",
            )
        key = self.hint.adds[0]
        found_right, found, asked_right, asked = torch.zeros(4, dtype=torch.float64)
        for batch, answer in evaluation.pairs():
            wanted = batch[key].cpu() if key in batch else self._drawn(batch["image"], key)
            seen = self._drawn(answer["image"], key)
            found_right, found = found_right + (seen * self._wide(wanted)).double().sum(), found + seen.double().sum()
            asked_right, asked = asked_right + (wanted * self._wide(seen)).double().sum(), asked + wanted.double().sum()
        precision, recall = found_right / found, asked_right / asked
        f1 = 2 * precision * recall / (precision + recall)
        return {"hint-f1": float(f1), "hint-precision": float(precision), "hint-recall": float(recall)}

    def _drawn(self, images: Tensor, key: str) -> Tensor:
        """Return the hints (B, c, H, W) of images (B, C, H, W) in [−1, 1]."""
        generator = torch.Generator().manual_seed(0)
        held = images.float().clamp(-1, 1).cpu()
        return torch.stack([self.hint({"image": image}, generator)[key] for image in held])

    def _wide(self, maps: Tensor) -> Tensor:
        """Return the largest value within the tolerance."""
        return functional.max_pool2d(maps, 2 * self.tolerance + 1, stride=1, padding=self.tolerance)
