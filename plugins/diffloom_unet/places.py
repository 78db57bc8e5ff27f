"""Where the parts of a U-Net lie: one walk through it, for all who name or describe it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from diffloom_unet.stages import Stage

Way = Literal["down", "mid", "up"]


@dataclass(frozen=True)
class Place:
    """Where a residual block, an attention or a convolution that resamples lies.

    Attributes:
        ours: Prefix of its keys here.
        part: The module.
        way: On which way.
        level: Number of the level along the way, from 0; what resamples belongs to the level before.
        index: Number of the stage within the level.
        stages: How many stages of the way come before.
        steps: How many steps of the way come before.
        resamples: Whether it lies between levels.
        attended: Whether the stage, or the last stage before, has an attention.
    """

    ours: str
    part: nn.Module
    way: Way
    level: int
    index: int
    stages: int
    steps: int
    resamples: bool
    attended: bool


def places(down: Iterable[nn.Module], middle: Iterable[nn.Module], up: Iterable[nn.Module]) -> Iterator[Place]:
    """Yield every place of a U-Net's ways, in the order in which they are computed."""
    yield from _along("down", "down", down)
    yield from _along("mid", "middle", middle)
    yield from _along("up", "up", up)


def _along(way: Way, prefix: str, steps: Iterable[nn.Module]) -> Iterator[Place]:
    level = index = stages = 0
    attended = False
    for number, step in enumerate(steps):
        if isinstance(step, Stage):
            attended = step.attention is not None
            ours = f"{prefix}.{number}"
            yield Place(f"{ours}.block", step.block, way, level, index, stages, number, False, attended)
            if step.attention is not None:
                yield Place(f"{ours}.attention", step.attention, way, level, index, stages, number, False, attended)
            index, stages = index + 1, stages + 1
        else:
            yield Place(f"{prefix}.{number}", step, way, level, index, stages, number, True, attended)
            level, index = level + 1, 0
