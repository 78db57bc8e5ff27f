"""Space: what is diffused — how many channels, how large, in which value range.

The data set describes the space of its images, the autoencoder the space of its latents. Every part that has to
know (a denoiser, a semantic check) receives the `Space` by annotation, so a recipe never says it twice.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Space:
    """The tensors a diffusion lives on.

    Attributes:
        channels: Channels of one item.
        size: Spatial size of one item, such as `(height, width)`.
        low: Smallest value, or `None` where values are unbounded (latents).
        high: Largest value, or `None` where values are unbounded.
    """

    channels: int
    size: tuple[int, ...]
    low: float | None = -1.0
    high: float | None = 1.0

    @property
    def bounded(self) -> bool:
        """Whether values have limits, so that clipping a clean estimate to them makes sense."""
        return self.low is not None and self.high is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one item, `(channels, *size)`."""
        return (self.channels, *self.size)

    @property
    def dimensions(self) -> int:
        """How many numbers one item holds: the D in bits per dimension."""
        count = self.channels
        for side in self.size:
            count *= side
        return count
