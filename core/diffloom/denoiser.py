"""Denoiser: a network that looks at x_t and t, and at what it is told, and says what is noise and what is not.

Law: removing every edit and every reader leaves the output bit-equal; `read` returns the feature maps of the named
taps as they are after their edits. What the output means (`Prediction`) is the recipe's business, not the network's.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from diffloom.condition import Condition, Ports, Tap
from diffloom.layout import Layout


class Denoiser(nn.Module, ABC):
    """Base of all denoisers.

    Attributes:
        taps: The feature maps it publishes, in the order in which they are computed.
        ports: What it accepts, with widths; checked before anything is allocated.
        shares: Whether x_t may have B items where a condition that fills the context port alone has k · B: x_t is then
            the same in every branch of guidance, and what the network makes of it before it looks at the context is
            made once for all of them.
        out_channels: Channels of the output: the space's, or twice that with learned variance.
        weight_files: What its constructor read weights from, if it does; a run's lock file records their hash.
    """

    taps: tuple[Tap, ...] = ()
    ports: Ports = Ports()
    shares: bool = False
    out_channels: int
    weight_files: tuple[Path, ...] = ()

    @abstractmethod
    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the network's output.

        Args:
            x_t: Noisy data, (B, C, *spatial), any float type; fewer items where the network `shares` them.
            t: Time, (B,), or 0-d when the whole batch is at one level; integer or real, 0 … T−1.
            condition: What it is told; the ports filled must be among `ports`.
            read: Names of taps to return as well.

        Returns:
            (B, out_channels, *spatial); or that and {tap: feature map} when `read` is given.
        """

    def prepare(self, condition: Condition) -> Condition:
        """Return a condition that says the same, with what depends on it alone computed: once instead of every step.

        A network that looks at a context keeps here what its layers project of the tokens (`Condition.projected`).
        The weights must not change between this and `forward`.

        Args:
            condition: What does not change during a walk; other conditions may be joined to it later.
        """
        return condition

    def until(self, tap: str) -> Self:
        """Return a copy of its own weights, all to be trained, that need not compute what comes after a tap.

        What it makes of the weights that it has now is what this network makes, up to that tap. A copy that computes
        no further publishes no taps beyond and returns the last map that it has. Here it is a whole copy; a network
        whose second half is not needed to read a tap leaves that out.

        Args:
            tap: The last tap that is read.
        """
        return copy.deepcopy(self).requires_grad_(True)

    def layouts(self) -> Sequence[Layout]:
        """Return how other libraries store the weights of this network, as it is configured; none by default."""
        return ()
