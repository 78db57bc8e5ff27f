"""The day of the year, as a vector."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom import Condition, Conditioner, Denoiser, Ports, Space
from diffloom.conditioner import Batch


class Season(Conditioner):
    """Asks for a day of the year; 31 December lies beside 1 January.

    Args:
        denoiser: Whose vector port is filled.
        key: Where the batch has the day, 0 … 365.
        waves: How many harmonics of the year are told.
    """

    def __init__(self, *, denoiser: Denoiser, key: str = "day", waves: Annotated[int, Field(gt=0)] = 2) -> None:
        super().__init__()
        width = denoiser.ports.vector
        self.needs, self.gives = (key,), Ports(vector=width)
        self.key, self.waves = key, waves
        self.any = nn.Parameter(torch.zeros(width))
        self.network = nn.Sequential(nn.Linear(2 * waves, width), nn.SiLU(), nn.Linear(width, width))

    @staticmethod
    def example_batch(count: int, space: Space) -> dict[str, Tensor]:
        """Return days, for the contract."""
        return {"day": torch.linspace(0, 365, count)}

    def encode(self, batch: Batch) -> Condition:
        """Return a vector for each item, (B, width)."""
        days: Tensor = batch[self.key]
        turn = 2 * math.pi * days.to(self.any) / 365.25
        angles = turn[:, None] * torch.arange(1, self.waves + 1, device=turn.device)
        return Condition(vector=self.network(torch.cat([angles.sin(), angles.cos()], 1)))

    def null(self, code: Condition) -> Condition:
        """Return the vector of "any day" for each item."""
        return Condition(vector=None if code.vector is None else self.any.expand_as(code.vector))
