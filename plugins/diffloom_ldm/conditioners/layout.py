"""Layout: tells a denoiser which objects stand where (Rombach et al. 2022, appendix; Esser et al. 2021).

Law: a point (x, y) in [0, 1]² is the token  round((s−1) y) · s + round((s−1) x)  of a grid of s × s, halves to the
even neighbour. An object is three tokens: its class, its upper left and its lower right corner. Class numbers and
places share one vocabulary; places that no object takes hold three times its last token. Two tokens of the crop end
the sequence. s is the largest side whose square leaves that last token free: 90 for a vocabulary of 8192.
"""

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import DataError
from diffloom_ldm.conditioners.encoder import TokenEncoder
from diffloom_ldm.conditioners.ports import context_width

Count = Annotated[int, Field(gt=0)]

NOBODY = -1
"""The label of a place that no object takes."""


def place_tokens(points: Tensor, side: int) -> Tensor:
    """Return the token of each point.

    Args:
        points: (…, 2), x and y in [0, 1].
        side: s, points along each side of the grid.

    Returns:
        (…,) int64, 0 … side² − 1.
    """
    column, row = (points.double() * (side - 1)).round().long().unbind(-1)
    return row * side + column


class Layout(Conditioner):
    """Boxes with labels as tokens for cross-attention, encoded by a transformer that is trained along.

    With its defaults and a context of 512 it has 54,656,000 parameters: the published 58,858,496 less an output
    layer that nothing uses.

    Args:
        classes: How many classes objects can have.
        objects: Most objects of an image.
        vocabulary: Tokens; classes and places share them, the last stands for "no object".
        layers: Of the transformer.
        heads: Of its attention.
        head_width: Channels of each head.
        denoiser: Whose context port is filled.

    Raises:
        IncompatibleParts: The denoiser has no context port.
        ValueError: There are more classes than tokens.
    """

    needs = ("boxes", "box_labels")
    examples: ClassVar = ({"classes": 3, "objects": 3, "vocabulary": 101, "layers": 1, "heads": 2, "head_width": 4},)

    def __init__(
        self,
        *,
        classes: Count,
        objects: Count = 30,
        vocabulary: Annotated[int, Field(gt=4)] = 8192,
        layers: Count = 16,
        heads: Count = 8,
        head_width: Count = 64,
        denoiser: Denoiser,
    ) -> None:
        super().__init__()
        width = context_width(denoiser, "layout")
        if classes >= vocabulary:
            raise ValueError(f"{classes} classes need a vocabulary of more than {classes} tokens")
        self.kinds, self.objects, self.vocabulary = classes, objects, vocabulary
        self.side = math.isqrt(vocabulary - 1)
        self.gives = Ports(context=width)
        self.encoder = TokenEncoder(
            vocabulary, 3 * objects + 2, width, layers=layers, heads=heads, head_width=head_width
        )

    def encode(self, batch: Batch) -> Condition:
        """Return the context (B, 3 · objects + 2, width).

        Args:
            batch: With `boxes` (B, M, 4): x, y of the upper left corner, width and height, as shares of the
                image's sides, in [0, 1]; `box_labels` (B, M) integers, −1 where there is no object; and, where it
                is a part of a larger one, `crop_box` (B, 4), where it lies in that.

        Raises:
            DataError: There are too many objects, or one has no class or lies outside of the image.
        """
        tokens = self.tokens(batch)
        return Condition(context=self.encoder(tokens.to(self.encoder.positions.device, non_blocking=True)))

    def null(self, code: Condition) -> Condition:
        """Return the context of no objects in an image that is no part of another."""
        count = 0 if code.context is None else code.context.shape[0]
        device = self.encoder.positions.device
        nothing = {
            "boxes": torch.zeros(1, 0, 4, device=device),
            "box_labels": torch.zeros(1, 0, dtype=torch.int64, device=device),
        }
        told: Tensor = self.encoder(self.tokens(nothing))
        return Condition(context=told.expand(count, -1, -1))

    def tokens(self, batch: Batch) -> Tensor:
        """Return the token numbers (B, 3 · objects + 2) of a batch; see `encode`."""
        boxes, labels = checked_boxes(batch, self.kinds, self.objects)
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0], device=boxes.device)
        crop = torch.as_tensor(batch.get("crop_box", whole.expand(len(boxes), 4)))
        triples = torch.cat([labels[..., None], self._corners(boxes)], -1)
        triples = torch.where((labels == NOBODY)[..., None], self.vocabulary - 1, triples)
        room = (0, 0, 0, self.objects - triples.shape[1])
        triples = torch.nn.functional.pad(triples, room, value=self.vocabulary - 1)
        return torch.cat([triples.flatten(1), self._corners(crop)], 1)

    def _corners(self, boxes: Tensor) -> Tensor:
        """Return the tokens (…, 2) of the upper left and lower right corners of boxes (…, 4)."""
        corner, size = boxes[..., :2].double(), boxes[..., 2:].double()
        return place_tokens(torch.stack([corner, corner + size], -2).clamp(0, 1), self.side)


def checked_boxes(batch: Batch, classes: int, objects: int) -> tuple[Tensor, Tensor]:
    """Return `boxes` (B, M, 4) and `box_labels` (B, M) of a batch; DataError where they are none."""
    boxes, labels = torch.as_tensor(batch["boxes"]), torch.as_tensor(batch["box_labels"])
    if boxes.dim() != 3 or boxes.shape[-1] != 4 or labels.shape != boxes.shape[:2] or labels.is_floating_point():
        raise DataError(
            "boxes and labels do not belong together",
            where="boxes",
            expected="boxes (B, M, 4), and whole-numbered box_labels (B, M)",
            got=f"{tuple(boxes.shape)}, and {labels.dtype} {tuple(labels.shape)}",
        )
    if boxes.shape[1] > objects:
        raise DataError(
            "an image has more objects than the layout has room for",
            where="boxes",
            expected=f"{objects} at most",
            got=str(boxes.shape[1]),
            remedy="raise `objects`, or keep the largest ones",
        )
    bounds = torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)
    real = labels != NOBODY
    outside = real & ((bounds < -1e-4) | (bounds > 1 + 1e-4) | (boxes < -1e-4)).any(-1)
    wrong = real & ((labels < 0) | (labels >= classes))
    if boxes.device.type == "meta":
        return boxes, labels
    if boxes.device.type != "cpu":  # reading the answer back would make the device wait
        torch._assert_async(~(outside | wrong).any(), "a box has no class, or lies outside of the image")
    elif wrong.any() or outside.any():
        raise DataError(
            "a box has no class" if wrong.any() else "a box lies outside of the image",
            where="box_labels" if wrong.any() else "boxes",
            expected=f"0 … {classes - 1}, or −1 for none" if wrong.any() else "x, y, width, height within 0 … 1",
            got=str((labels[wrong] if wrong.any() else boxes[outside])[0].tolist()),
        )
    return boxes, labels
