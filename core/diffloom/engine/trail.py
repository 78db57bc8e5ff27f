"""Trail: some states of a few items on their way from noise to image, for the pictures of a report."""

import torch
from torch import Tensor

from diffloom.sampler import State
from diffloom.system import System


class Trail:
    """Watches a walk and keeps what it sees, until it is closed.

    Args:
        system: Whose autoencoder makes pictures of the states.
        items: How many of the batch's first items are kept.
        frames: How many states are shown, evenly chosen.
    """

    def __init__(self, system: System, items: int = 8, frames: int = 9) -> None:
        self.system = system
        self.items = items
        self.shown = frames
        self.frames: list[Tensor] = []
        self.closed = False

    def __call__(self, state: State) -> None:
        """Keep a state."""
        if not self.closed:
            self.frames.append(state.x[: self.items].detach().clone())

    def pictures(self) -> Tensor:
        """Return (frames, n, C, H, W) in [−1, 1], the last one clean."""
        chosen = torch.linspace(0, len(self.frames) - 1, min(self.shown, len(self.frames))).round().long()
        with torch.inference_mode():
            frames = [self.system.autoencoder.decode(self.frames[int(i)]).clamp(-1, 1).cpu() for i in chosen]
        return torch.stack(frames)
