"""ClassLabel: tells a denoiser the class of an image.

Through the vector port it is added to the time embedding (Nichol & Dhariwal 2021, Dhariwal & Nichol 2021);
through the context port it is the only token that the network looks at (Rombach et al. 2022, ImageNet).
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import DataError, IncompatibleParts
from diffloom.layout import Layout, Weld


class ClassLabel(Conditioner):
    """One learned row per class, as wide as the denoiser's port; the last row stands for "no class".

    Args:
        classes: How many classes there are; labels are 0 … classes − 1.
        port: Which port is filled: `vector`, or `context` with one token.
        denoiser: Whose port is filled.

    Raises:
        IncompatibleParts: The denoiser does not have the port.
    """

    needs = ("label",)
    examples: ClassVar = ({"classes": 3}, {"classes": 3, "port": "context"})

    def __init__(
        self,
        *,
        classes: Annotated[int, Field(gt=0)],
        port: Literal["vector", "context"] = "vector",
        denoiser: Denoiser,
    ) -> None:
        super().__init__()
        width = getattr(denoiser.ports, port)
        if not width:
            raise IncompatibleParts(
                f"the denoiser has no {port} port",
                where="class-label",
                expected="a port to tell the class to",
                remedy=f"choose a denoiser with a {port} port, or open it",
            )
        self.classes = classes
        self.port = port
        self.gives = Ports(vector=width) if port == "vector" else Ports(context=width)
        self.table = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def encode(self, batch: Batch) -> Condition:
        """Return each item's row as vector (B, width), or as context (B, 1, width).

        Args:
            batch: With `label` (B,), integers 0 … classes − 1.

        Raises:
            DataError: A label is no integer or no class.
        """
        labels = torch.as_tensor(batch["label"])
        self._check(labels)
        return self._said(labels.to(self.table.weight.device, non_blocking=True))

    def null(self, code: Condition) -> Condition:
        """Return the row of "no class" for each item, in the shape of the code."""
        said = code.vector if self.port == "vector" else code.context
        count = 1 if said is None else said.shape[0]
        return self._said(torch.full((count,), self.classes, device=self.table.weight.device))

    def layouts(self) -> Sequence[Layout]:
        """Return diffusers', whose U-Nets keep such a table themselves; for the vector port."""
        welds = (Weld("table.weight", ("weight",)),)
        config = {"num_class_embeds": self.classes + 1}
        return (Layout("diffusers", welds, prefix="class_embedding.", config=config),) if self.port == "vector" else ()

    def _said(self, rows: Tensor) -> Condition:
        told = self.table(rows)
        return Condition(vector=told) if self.port == "vector" else Condition(context=told[:, None])

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
