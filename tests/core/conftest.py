"""Small parts and recipes for the tests of core."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import diffloom
from diffloom import Condition, Denoiser, Ports, Space, Tap


class Tiny(Denoiser):
    """A denoiser of two convolutions with one tap.

    Args:
        space: What it denoises.
        width: Channels inside.
        concat: Channels beside x_t.
        context: Width of the context.
    """

    def __init__(
        self,
        *,
        space: Space,
        width: Annotated[int, Field(gt=0)] = 8,
        concat: Annotated[int, Field(ge=0)] = 0,
        context: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__()
        self.inner = nn.Conv2d(space.channels + concat, width, 3, padding=1)
        self.told = nn.Linear(4, width)
        self.outer = nn.Conv2d(width, space.channels, 3, padding=1)
        self.listen = nn.Linear(context, width) if context else None
        self.out_channels = space.channels
        self.taps = (Tap("mid", width, 1),)
        self.ports = Ports(vector=4, concat=concat, context=context, affine={"mid": width})

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        condition = condition or Condition()
        x = x_t if condition.concat is None else torch.cat([x_t, condition.concat], 1)
        h = self.inner(x) + torch.cos(t.to(x.dtype)).view(-1, 1, 1, 1)
        if condition.vector is not None:
            h = h + self.told(condition.vector)[:, :, None, None]
        if condition.context is not None and self.listen is not None:
            h = h + self.listen(condition.context).mean(1)[:, :, None, None]
        h = condition.edit("mid", torch.nn.functional.silu(h))
        out: Tensor = self.outer(h)
        return (out, {"mid": h}) if read else out


@pytest.fixture
def tiny() -> Iterator[type[Tiny]]:
    with diffloom.registry.add("denoiser", "tiny", Tiny):
        yield Tiny


RECIPE = """\
diffloom: 1
name: small
seed: 3
data:      {type: digits, size: 8}
schedule:  {type: cosine, steps: 50}
denoiser:  {type: tiny, width: 8, prediction: v}
conditioners:
  digit:   {type: class-label, classes: 10, drop: 0.2, guidance: 1.5}
sampler:   {type: ddim, steps: 4}
task:      {type: generate}
train:     {steps: 12, batch: 8, lr: 1.0e-2, ema: 0.9, checkpoint_every: 4, log_every: 1}
sample:    {count: 4}
eval:      {count: 8, batch: 4}
hooks:     []
"""


@pytest.fixture
def recipe_file(tmp_path: Path, tiny: type[Tiny]) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return file
