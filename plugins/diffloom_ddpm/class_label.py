"""ClassLabel: tells a denoiser the class of an image through its vector port (Nichol & Dhariwal 2021)."""

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import DataError, IncompatibleParts


class ClassLabel(Conditioner):
    """One learned vector per class, added to the time embedding; the last row stands for "no class".

    Args:
        classes: How many classes there are; labels are 0 … classes − 1.
        denoiser: Whose vector port is filled.

    Raises:
        IncompatibleParts: The denoiser has no vector port.
    """

    needs = ("label",)
    examples: ClassVar = ({"classes": 3},)

    def __init__(self, *, classes: Annotated[int, Field(gt=0)], denoiser: Denoiser) -> None:
        super().__init__()
        width = denoiser.ports.vector
        if not width:
            raise IncompatibleParts(
                "the denoiser has no vector port",
                where="class-label",
                expected="a port to add the class to",
                remedy="choose a denoiser with a vector port, or open it",
            )
        self.classes = classes
        self.gives = Ports(vector=width)
        self.table = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def encode(self, batch: Batch) -> Condition:
        """Return each item's vector (B, width).

        Args:
            batch: With `label` (B,), integers 0 … classes − 1.

        Raises:
            DataError: A label is no integer or no class.
        """
        labels = torch.as_tensor(batch["label"])
        self._check(labels)
        labels = labels.to(self.table.weight.device, non_blocking=True)
        return Condition(vector=self.table(labels))

    def null(self, code: Condition) -> Condition:
        """Return the vector of "no class" for each item, (B, width)."""
        rows = code.vector
        nobody = self.table.weight[-1]
        return replace(code, vector=nobody if rows is None else nobody.expand_as(rows))

    def _check(self, labels: Tensor) -> None:
        if labels.is_floating_point() or labels.dim() != 1:
            raise DataError(
                "labels are not class indices",
                where="label",
                expected="integers (B,)",
                got=f"{labels.dtype} {tuple(labels.shape)}",
            )
        wrong = (labels < 0) | (labels >= self.classes)
        if labels.device.type != "cpu":  # reading the answer back would make the device wait
            torch._assert_async(~wrong.any(), "a label is no class")
        elif wrong.any():
            raise DataError(
                "a label is no class",
                where="label",
                expected=f"0 … {self.classes - 1}",
                got=str(labels[wrong][0].item()),
                remedy="count the classes of the data from 0, and set `classes` to their number",
            )
