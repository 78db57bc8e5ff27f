"""TimeModulation: scales and shifts every residual branch by what time it is."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom.condition import Affine, Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser


class TimeModulation(Conditioner):
    """h ← (1 + scale(t)) ⊙ h + shift(t) at every `res.*` tap, zero at the start.

    Args:
        denoiser: Whose residual branches are modulated.
        width: Of the embedding of time.
        period: Longest period of the embedding, in timesteps.
    """

    def __init__(
        self,
        *,
        denoiser: Denoiser,
        width: Annotated[int, Field(gt=1, multiple_of=2)] = 32,
        period: Annotated[float, Field(gt=0)] = 1000.0,
    ) -> None:
        super().__init__()
        self.width, self.period = width, period
        self.widths = {tap.name: tap.channels for tap in denoiser.taps if tap.name.startswith("res.")}
        self.gives = Ports(affine=self.widths)
        self.hidden = nn.Linear(width, width)
        self.heads = nn.ModuleList(nn.Linear(width, 2 * channels) for channels in self.widths.values())
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Return a code that says nothing but that it is heard: (B, 1) ones."""
        first = next(value for value in batch.values() if isinstance(value, Tensor))
        return {"heard": first.new_ones(first.shape[0], 1, dtype=self.hidden.weight.dtype)}

    def null(self, code: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the code that is not heard."""
        return {"heard": torch.zeros_like(code["heard"])}

    def forward(self, code: dict[str, Tensor], x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        """Return scales and shifts for t, (B,) or 0-d."""
        octaves = 2.0 ** torch.arange(self.width // 2, device=t.device)
        angle = t.reshape(-1, 1) * (torch.pi / self.period) * octaves
        wave = torch.cat([angle.sin(), angle.cos()], 1).to(self.hidden.weight.dtype)
        hidden = functional.silu(self.hidden(wave)) * code["heard"]
        affine = {}
        for name, head in zip(self.widths, self.heads, strict=True):
            scale, shift = (head(hidden) * code["heard"])[:, :, None, None].chunk(2, 1)
            affine[name] = Affine(scale, shift)
        return Condition(affine=affine)
