"""Restoration: a task that learns as another task does, and answers each image of a batch with one of its own.

Law: what is learned is how to denoise; what it is told beside x_t (a mask, a low-resolution image, a source) is a
conditioner's business. So every restoration shares one loss, and only its answer differs.

What could be answered without a network, such as a bicubic enlargement g, is a restoration's guess. With `residual` r
it is (x − g) / r that is diffused, and r x_0 + g that is answered (Li et al. 2022, SRDiff; Whang et al. 2022): a
network that knows nothing then answers with the guess, instead of having to learn it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated

from pydantic import Field
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.system import System
from diffloom.task import Loss, Objective, Task
from diffloom_ddpm.generate import Generate

Guess = Callable[[Batch, Sequence[int]], Tensor]
"""An answer without a network: images (B, C, H, W) in [−1, 1], for a batch and the size H, W of the answer."""

Residual = Annotated[float, Field(gt=0)]

_DIFFERENCE = "residual"


class Restoration(Task):
    """Base of the restorations.

    Args:
        objective: The task whose objectives are trained; `generate` with its defaults where none is named.
        residual: r, the typical size of what the first guess lacks: its root mean square over the data. By default
            images themselves are diffused.

    Raises:
        IncompatibleParts: With a residual, if there is no guess, or the objective learns images alone.
    """

    paired = True

    def __init__(self, objective: Task | None = None, residual: float | None = None) -> None:
        super().__init__()
        self.learned = Generate() if objective is None else objective
        self.residual = residual
        if residual is not None:
            self._learn_differences()

    def guesses(self) -> Mapping[str, Guess]:
        """Return by name what could be answered without a network; a residual is what the first one lacks.

        None of them looks at what is asked for.
        """
        return {}

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return the objectives of the task that it learns as.

        Raises:
            IncompatibleParts: With a residual, if what is diffused are not pixels, or the sampler clips them.
        """
        learned = self.learned.objectives(system)
        if self.residual is None:
            return learned
        _require_pixels(system)
        return [Objective(each.name, each.parameters, partial(self._beyond, each.loss)) for each in learned]

    def answered(self, system: System, batch: Batch, latents: Tensor) -> Tensor:
        """Return the images (B, C, H, W) that clean latents mean as an answer to a batch, not yet clamped."""
        made = system.autoencoder.decode(latents)
        return made if self.residual is None else self._first()(batch, made.shape[2:]) + self.residual * made

    def _beyond(self, loss: Callable[[Batch, Noise], Loss], batch: Batch, noise: Noise) -> Loss:
        """Return the loss where what is learned is the difference from the first guess, at unit size."""
        image = batch["image"]
        lacking = (image - self._first()(batch, image.shape[2:])) / (self.residual or 1.0)
        return loss({**batch, _DIFFERENCE: lacking}, noise)

    def _first(self) -> Guess:
        return next(iter(self.guesses().values()))

    def _learn_differences(self) -> None:
        """Let the objective learn the difference, in place of the image."""
        if not self.guesses() or not isinstance(self.learned, Generate):
            raise IncompatibleParts(
                "there is no first guess whose residual could be learned"
                if isinstance(self.learned, Generate)
                else "the objective learns images, not what a first guess lacks",
                where="task.residual",
                expected="null",
                got=str(self.residual),
                remedy="leave it out, or use `objective: {type: generate, …}` with a task that has a guess",
            )
        self.learned.image = _DIFFERENCE


def _require_pixels(system: System) -> None:
    """Refuse latents, of which a difference of images has none, and clipping, which such a difference outgrows."""
    clip = system.sampler.clip
    if system.autoencoder.bounded and clip is None:
        return
    raise IncompatibleParts(
        "a residual is a difference of pixels, as large as it happens to be",
        where="task.residual",
        expected="no autoencoder, and a sampler that does not clip",
        got=f"latents of {type(system.autoencoder).__name__}" if clip is None else f"sampler.clip: {clip}",
        remedy="leave `residual` out" if clip is None else "set sampler.clip to null",
    )
