"""Translate: turn an image into another, by noising it part of the way (Meng et al. 2022, SDEdit) or by being told it.

Law: with strength s and n steps the last ⌊n s⌋ are made, from the noised latents of the source; s = 0 returns the
autoencoder's own reconstruction.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.noise import Noise
from diffloom.system import System
from diffloom.task import Task
from diffloom_ldm.tasks.restoration import Guess, Restoration


class Translate(Restoration):
    """Turn images into others, towards whatever the conditioners ask for.

    Args:
        source: Where a batch has the images to begin from. For pairs, such as `pre` and `image`, a conditioner
            `{type: image, key: pre}` shows it to the network too.
        strength: How much may change, 0 … 1; `null` begins from noise alone, for networks that are shown the
            source.
        objective: The task whose objectives are trained; `generate` by default.
    """

    def __init__(
        self,
        *,
        source: str = "image",
        strength: Annotated[float, Field(ge=0, le=1)] | None = 0.75,
        objective: Task | None = None,
    ) -> None:
        super().__init__(objective)
        self.source, self.strength = source, strength
        self.needs = tuple(dict.fromkeys(("image", source)))
        self.told = (source,) if strength is None else ()
        self.asks = () if strength is None else (source,)

    def guesses(self) -> Mapping[str, Guess]:
        """Return `source`: nothing is changed."""
        return {"source": self._unchanged}

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return translated images, `image` (B, C, H, W) in [−1, 1].

        Args:
            system: Any that generates; its autoencoder's most likely codes are begun from.
            batch: With the source (B, C, H, W) in [−1, 1], and what the conditioners read.
            noise: One stream per item.
        """
        if self.strength is None:
            latents = system.walk(batch, noise)
        else:
            begin = system.autoencoder.encode(batch[self.source]).mode()
            latents = system.walk(batch, noise, x0=begin, strength=self.strength)
        return {"image": system.autoencoder.decode(latents).clamp(-1, 1)}

    def _unchanged(self, batch: Batch, size: Sequence[int]) -> Tensor:
        source: Tensor = batch[self.source]
        return source
