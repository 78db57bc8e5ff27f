"""DiffusersClass: tells a diffusers network the class of an image, as a weight for every class it knows."""

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import DataError, IncompatibleParts


class DiffusersClass(Conditioner):
    """The class, one-hot, for the vector port of `denoiser/diffusers`; it has no weights of its own.

    Args:
        denoiser: Whose vector port is filled: one weight for each class.
        null: The class that stands for "no class"; by default the one that the network has for it, and no class at
            all where it has none.

    Raises:
        IncompatibleParts: The denoiser has no vector port, or no such class.
    """

    needs = ("label",)
    examples: ClassVar[tuple[dict[str, int], ...]] = ({}, {"null": 3})

    def __init__(self, *, denoiser: Denoiser, null: Annotated[int, Field(ge=0)] | None = None) -> None:
        super().__init__()
        self.classes = denoiser.ports.vector
        own = getattr(denoiser, "null_class", None)
        self.nobody: int | None = own if null is None else null
        if not self.classes or (self.nobody is not None and self.nobody >= self.classes):
            raise IncompatibleParts(
                "the denoiser does not know this class" if self.classes else "the denoiser has no vector port",
                where="diffusers-class",
                expected=f"a class below {self.classes}" if self.classes else "a network with a table of classes",
                got=f"null {self.nobody}" if self.classes else "width 0",
            )
        self.gives = Ports(vector=self.classes)
        self.register_buffer("device_mark", torch.empty(0), persistent=False)

    def encode(self, batch: Batch) -> Condition:
        """Return each item's class, (B, classes), 1 at its label and 0 elsewhere.

        Args:
            batch: With `label` (B,), integers 0 … classes − 1.

        Raises:
            DataError: A label is no integer or no class.
        """
        labels = torch.as_tensor(batch["label"])
        on_cpu = labels.device.type == "cpu"
        whole = not labels.is_floating_point() and labels.dim() == 1
        if not whole or (on_cpu and bool(((labels < 0) | (labels >= self.classes)).any())):
            raise DataError(
                "labels are not classes of the network",
                where="label",
                expected=f"integers (B,), 0 … {self.classes - 1}",
                got=f"{labels.dtype} {tuple(labels.shape)}" if not whole else str(labels.tolist()),
            )
        mark: Tensor = self.device_mark  # type: ignore[assignment]  # the buffer
        return Condition(vector=functional.one_hot(labels.long(), self.classes).float().to(mark.device))

    def null(self, code: Condition) -> Condition:
        """Return the vector of "no class" for each item, (B, classes)."""
        if code.vector is None:
            return code
        nobody = torch.zeros_like(code.vector)
        if self.nobody is not None:
            nobody[:, self.nobody] = 1
        return replace(code, vector=nobody)
