"""Task: what a system is trained for, and what it then answers.

A task gives objectives — each a loss over its own parameters, stepped by its own optimiser, several of them make a
GAN — and predicts. Networks that only training needs (a discriminator, a perceptual loss) live in the task.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn

from diffloom.conditioner import Batch
from diffloom.noise import Noise

if TYPE_CHECKING:
    from diffloom.system import System


@dataclass(frozen=True)
class Loss:
    """One loss value, with what it is made of.

    Attributes:
        value: 0-d, what is differentiated: a mean over the batch.
        terms: Named 0-d figures to be logged, detached.
    """

    value: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """A loss and the parameters that it moves.

    Attributes:
        name: Names the objective in logs and checkpoints.
        parameters: Parameter name → parameter; names are stable between runs.
        loss: `loss(batch, noise)`; the noise has one stream per item of the batch.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    loss: Callable[[Batch, Noise], Loss]


class Task(nn.Module, ABC):
    """Base of all tasks.

    Attributes:
        needs: Keys of the batch that its losses read.
        told: Keys of the batch that the network must be told of, so that some conditioner has to read them.
        asks: Keys of the batch that its predictions read, beside what conditioners read.
        paired: Whether a prediction answers the batch's own image (restoration), rather than being a new one.
        step: Steps that training has made before the present one; the engine keeps it.
    """

    needs: tuple[str, ...] = ("image",)
    told: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    paired: bool = False
    step: int = 0

    @abstractmethod
    def objectives(self, system: "System") -> Sequence[Objective]:
        """Return what is trained; parameters with `requires_grad` false are left out by the engine."""

    @abstractmethod
    def predict(self, system: "System", batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return the answers for a batch, `image` among them: (B, C, H, W) in [−1, 1]."""

    def finish(self, system: "System", batches: Iterator[tuple[Batch, Noise]]) -> None:
        """Complete what was trained, once, after the last step: measure what can only be measured then.

        Args:
            system: In evaluation mode, with averaged weights; changes of its buffers are saved with these.
            batches: Batches of the training data, without end, each with its noise.
        """
