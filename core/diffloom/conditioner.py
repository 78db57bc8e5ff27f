"""Conditioner: turns something in a batch (a label, a caption, an image) into what a denoiser is told.

Law: `encode` runs once per sample, `forward` at every step. A static conditioner's code *is* its `Condition`, and the
inherited `forward` returns it. `null` gives the code of "nothing said", for guidance and for drop-out in training.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from diffloom.condition import Condition, Ports
from diffloom.errors import DataError
from diffloom.layout import Layout
from diffloom.noise import Noise

Batch = dict[str, Any]
"""Conventional keys: `image` (B, C, H, W) in [−1, 1], `label` (B,) int64, `mask`, `caption`, `low_res`, …"""

Code = Any
"""A `Condition`, or any tree (dict, list, tuple) of tensors whose first dimension is the batch."""


def length(batch: Batch) -> int:
    """Return how many items a batch has; DataError where nothing in it says so."""
    for value in batch.values():
        return len(value)
    raise DataError("an empty batch does not say how many items it has", remedy="add a key, such as `item`: 0, 1, …")


@dataclass(frozen=True)
class Conditioning:
    """How one conditioner takes part.

    Attributes:
        drop: Probability that training replaces its code by the null, per sample.
        guidance: Guidance scale in sampling, or `None`: always given.
        start: Part of a walk's steps before it is told, 0 … 1; its null is, until then.
        end: Part of a walk's steps after which its null is told, 0 … 1.
    """

    drop: float = 0.0
    guidance: float | None = None
    start: float = 0.0
    end: float = 1.0


class Conditioner(nn.Module, ABC):
    """Base of all conditioners.

    Attributes:
        gives: The ports it fills, with widths.
        needs: Keys of the batch that `encode` reads.
        wants: Keys that it reads as well where a batch has them, and can do without.
        only_time: Whether `forward` looks at nothing but the code and the time. Branches of guidance that have the
            same code then ask it once for all of them.
    """

    gives: Ports
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    only_time: bool = False

    @property
    def static(self) -> bool:
        """Whether its code is what it says at every step: it has no `forward` of its own."""
        return type(self).forward is Conditioner.forward

    @abstractmethod
    def encode(self, batch: Batch) -> Code:
        """Return the code of each item; computed once per sample."""

    @abstractmethod
    def null(self, code: Code) -> Code:
        """Return the unconditional code, in the shapes of `code`."""

    def vary(self, code: Code, noise: Noise) -> Code:
        """Return the code with what is left to chance in it drawn, such as noise on a low-resolution image.

        It comes once per sample after `encode`, in training and in sampling; by default nothing is left to chance.

        Args:
            code: What `encode` returned.
            noise: One stream per item.
        """
        return code

    def hide(self, code: Code, noise: Noise) -> Code:
        """Return the code with parts of it hidden, as only training does; by default none are.

        The recipe's `drop` comes after it, and replaces the whole code by its null.

        Args:
            code: What `vary` returned.
            noise: One stream per item.
        """
        return code

    def prepare(self, code: Code, given: Condition) -> Code:
        """Return a code for `forward` that says the same, with what stays the same during a walk computed.

        It comes once per walk, for all branches of guidance together, and only to those who are asked at every step;
        what it returns goes to `forward` alone. The weights must not change in between.

        Args:
            code: What `encode` returned, or codes like it joined along the batch.
            given: What the conditioners before this one say at every step alike; empty for those that look at the
                time alone.
        """
        return code

    def forward(self, code: Code, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        """Return what this conditioner adds at time t.

        Args:
            code: What `encode` returned, or `prepare`.
            x_t: Noisy data (B, C, *spatial), before any `concat`.
            t: (B,) or 0-d.
            given: What the conditioners before this one said.
        """
        if not isinstance(code, Condition):
            raise TypeError(f"{type(self).__name__}.encode does not return a Condition, so it must define forward")
        return code

    def layouts(self) -> Sequence[Layout]:
        """Return how other libraries store the weights of this part, as it is configured; none by default."""
        return ()
