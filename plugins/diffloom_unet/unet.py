"""UNet: the network of DDPM (Ho et al. 2020) and, by its parameters, of ADM, latent and Stable Diffusion.

Levels halve the map. A stem and `blocks` residual blocks per level lead down, residual–attention–residual
stand in the middle, `blocks` + 1 per level lead up, where every map of the way down is received beside the own.
With a `context`, transformers that look at it stand where otherwise attention does.
`UNet(channels=128, attention=(16,))` on 32×32 RGB is DDPM's CIFAR-10 network: 35,746,307 parameters.
`UNet(channels=320, multipliers=(1, 2, 4, 4), attention=(64, 32, 16), heads=8, context=768, eps=1e-5, embedding="adm",
padding="symmetric", vector=0)` on 64×64 latents of 4 channels is Stable Diffusion 1's: 859,520,964.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom.condition import Condition, Ports, Tap
from diffloom.denoiser import Denoiser
from diffloom.errors import IncompatibleParts
from diffloom.layout import Layout
from diffloom.space import Space
from diffloom_nets import (
    Conv2d,
    Convention,
    CrossAttention,
    GroupNorm,
    Padding,
    ResBlock,
    Taps,
    TimeEmbedding,
    TimeProjection,
    xavier,
    zero,
)
from diffloom_unet.layouts import layouts
from diffloom_unet.stages import Plan, Resampling, Stage

Count = Annotated[int, Field(gt=0)]


class UNet(Denoiser):
    """The U-Net of DDPM, Improved DDPM, ADM and latent diffusion, for any number of channels.

    Its taps are `down.N` (0: the stem, then each step of the way down), `skip.N`, `mid` and `up.N` (each block of the
    way up); and of every residual block, by its place P among `down.N`, `mid.N`, `up.N`, and `halve.N` or `double.N`
    where residual blocks resample: `norm.P.0`, `norm.P.1` and `res.P`. An edited skip changes what the way up receives,
    an edit of `down.N` the way down as well. The output starts as 0.

    Args:
        space: What is diffused; its sides must divide by 2 once for each level after the first.
        channels: Width of the first level.
        multipliers: Width of each level, in multiples of `channels`.
        blocks: Residual blocks per level on the way down; one more on the way up.
        attention: Map sizes, in pixels of the longer side, at which attention follows each block. (Latent
            diffusion's configurations list factors by which the map was halved instead.)
        heads: Attention heads.
        head_width: Channels per head, instead of a number of heads.
        context: Width of the context port's tokens, which transformers look at; 0 closes the port, and plain
            self-attention stands in their place.
        depth: Blocks of each transformer; or a number per level, the middle having the last.
        dropout: Probability, in the residual blocks.
        groups: Most groups of a normalisation; the largest divisor of its width up to this is taken that leaves
            two channels to a group.
        eps: Added to the variance in a normalisation: 1e-6 in DDPM, 1e-5 in Improved DDPM.
        embedding: Of time: ddpm is [sin | cos], adm [cos | sin]. Pretrained weights know only one of them.
        scale_shift: Whether time scales and shifts the second normalisation, or is added before it.
        padding: Of the halvings: same (right and bottom only, DDPM) or symmetric (Improved DDPM).
        resampling: Whether maps are halved and doubled by a convolution, or by a residual block (ADM).
        concat: Extra input channels, for what is told beside x_t.
        vector: Width of the vector port. By default that of the time embedding, 4 · channels; another width
            is projected to it by a linear layer; 0 closes the port.
        variance: learned doubles the output channels.

    Raises:
        IncompatibleParts: The space's sides do not divide, attention is asked for at a size that no level
            has, the heads cannot share the channels, or the depths are not one per level.
    """

    examples: ClassVar = (
        {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "groups": 4},
        {"channels": 8, "multipliers": (1, 2), "blocks": 1, "scale_shift": True, "concat": 2, "variance": "learned"},
        {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "context": 6, "resampling": "residual"},
    )

    def __init__(
        self,
        *,
        space: Space,
        channels: Count = 64,
        multipliers: Annotated[Sequence[Count], Field(min_length=1)] = (1, 2, 2, 2),
        blocks: Count = 2,
        attention: Sequence[Count] = (),
        heads: Count = 1,
        head_width: Count | None = None,
        context: Annotated[int, Field(ge=0)] = 0,
        depth: Count | Sequence[Count] = 1,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        groups: Count = 32,
        eps: Annotated[float, Field(gt=0)] = 1e-6,
        embedding: Convention = "ddpm",
        scale_shift: bool = False,
        padding: Padding = "same",
        resampling: Resampling = "conv",
        concat: Annotated[int, Field(ge=0)] = 0,
        vector: Annotated[int, Field(ge=0)] | None = None,
        variance: Literal["fixed", "learned"] = "fixed",
    ) -> None:
        super().__init__()
        self.shares = context > 0
        attended = _attended(space, len(multipliers), attention)
        widths, wide = [channels * m for m in multipliers], 4 * channels
        plan = Plan(
            stem=channels,
            widths=widths,
            attended=attended,
            depths=_depths(depth, len(widths)),
            blocks=blocks,
            heads=heads,
            head_width=head_width,
            context=context,
            dropout=dropout,
            groups=groups,
            eps=eps,
            scale_shift=scale_shift,
            padding=padding,
            resampling=resampling,
        )
        vector = wide if vector is None else vector
        self.space, self.plan = space, plan
        self.out_channels = space.channels * (2 if variance == "learned" else 1)
        self.multiple = 2 ** (len(widths) - 1)

        self.time = TimeEmbedding(channels, wide, convention=embedding, vector=vector)
        self.stem = xavier(Conv2d(space.channels + concat, channels, 3, padding=1))
        self.down = nn.ModuleList(plan.down())
        self.middle = nn.ModuleList(plan.middle())
        self.up = nn.ModuleList(plan.up())
        self.norm: GroupNorm | None = plan.norm(widths[0])
        self.head: Conv2d | None = zero(Conv2d(widths[0], self.out_channels, 3, padding=1))
        self.project = TimeProjection(wide, [block.time_width for block in self.residual_blocks()])

        self.taps = tuple(self._taps(plan))
        edits = {tap.name: tap.channels for tap in self.taps}
        self.ports = Ports(context=context, vector=vector, concat=concat, affine=edits)

    def layouts(self) -> Sequence[Layout]:
        """Return diffusers' layout and that of latent diffusion's files, where they can express this network."""
        return layouts(self)

    def residual_blocks(self) -> list[ResBlock]:
        """Return the residual blocks in the order in which they are computed, and told the time."""
        ways = (self.down, self.middle, self.up)
        return [block for way in ways for block in way.modules() if isinstance(block, ResBlock)]

    def until(self, tap: str) -> "UNet":
        """Return a copy until a tap; where that lies before the way up, it has none, and ends with the middle."""
        names = [found.name for found in self.taps]
        taps = self.taps[: names.index("mid") + 1]
        if tap not in names[: len(taps)]:
            return super().until(tap)
        blocks = sum(isinstance(part, ResBlock) for way in (self.down, self.middle) for part in way.modules())
        instead: dict[int, nn.Module] = {id(part): nn.ModuleList() for part in (self.up, self.norm, self.head)}
        part = copy.deepcopy(self, {**instead, id(self.project): self.project.first(blocks)}).requires_grad_(True)
        part.norm = part.head = None
        part.taps, part.out_channels = taps, self.plan.widths[-1]
        part.ports = replace(self.ports, affine={found.name: found.channels for found in part.taps})
        return part

    def prepare(self, condition: Condition) -> Condition:
        """Return the condition with its context projected for every layer that looks at it; see `Denoiser`."""
        self._check_port("context", condition.context)
        if condition.context is None:
            return condition
        layers = [layer for layer in self.modules() if isinstance(layer, CrossAttention)]
        made = [layer.project(condition.context) for layer in layers]
        return replace(condition, projected={name: tokens for each in made for name, tokens in each.items()})

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the network's output, and the maps of the taps in `read` if there are any; see `Denoiser`.

        Raises:
            IncompatibleParts: A side of x_t does not divide by `multiple`, the condition does not fit the
                ports, or a tap has an unknown name.
        """
        condition = condition or Condition()
        self._check(x_t, condition)
        taps = Taps(self.ports.affine, condition, read)
        times = iter(self.project(self.time(t, condition.vector)))

        def run(step: nn.Module, h: Tensor) -> Tensor:
            if isinstance(step, Stage):
                told: Tensor = step(h, next(times), taps, condition)
                return told
            out: Tensor = step(h, next(times), taps) if isinstance(step, ResBlock) else step(h)
            return out

        x = x_t if condition.concat is None else torch.cat([x_t, condition.concat.to(x_t.dtype)], 1)
        h = taps("down.0", self.stem(x.to(self.stem.weight.dtype, memory_format=torch.channels_last)))
        skips = [taps("skip.0", h)]
        for index, step in enumerate(self.down, 1):
            h = taps(f"down.{index}", run(step, h))
            skips.append(taps(f"skip.{index}", h))
        h = condition.spread(h)
        for stage in self.middle:
            h = run(stage, h)
        h = taps("mid", h)
        index = 0
        for step in self.up:
            if isinstance(step, Stage):
                h = taps(f"up.{index}", run(step, torch.cat([h, condition.spread(skips.pop())], 1)))
                index += 1
            else:
                h = run(step, h)
        h = h if self.norm is None or self.head is None else self.head(self.norm(h), silu=True)
        out = h.to(x_t.dtype).contiguous()
        return (out, {name: taps.maps[name] for name in read}) if read else out

    def _check(self, x_t: Tensor, condition: Condition) -> None:
        if any(side % self.multiple for side in x_t.shape[2:]):
            raise _indivisible(x_t.shape[2:], self.multiple)
        self._check_port("vector", condition.vector)
        self._check_port("context", condition.context, needed=True)
        self._check_port("concat", condition.concat, axis=1, needed=True)

    def _check_port(self, port: str, told: Tensor | None, *, axis: int = -1, needed: bool = False) -> None:
        width = getattr(self.ports, port)
        got = 0 if told is None else told.shape[axis]
        if got != width and (told is not None or needed):
            raise IncompatibleParts(
                f"the {port} port does not fit", where="denoiser", expected=f"width {width}", got=f"width {got}"
            )

    def _taps(self, plan: Plan) -> Iterator[Tap]:
        stride, skips = 1, plan.skips()
        yield from (Tap("down.0", skips[0], stride), Tap("skip.0", skips[0], stride))
        for index, step in enumerate(self.down, 1):
            before, stride = stride, stride * (1 if isinstance(step, Stage) else 2)
            yield from _block_taps(step, before, stride)
            yield from (Tap(f"down.{index}", skips[index], stride), Tap(f"skip.{index}", skips[index], stride))
        for step in self.middle:
            yield from _block_taps(step, stride, stride)
        yield Tap("mid", plan.widths[-1], stride)
        index = 0
        for step in self.up:
            before, stride = stride, stride // (1 if isinstance(step, Stage) else 2)
            yield from _block_taps(step, before, stride)
            if isinstance(step, Stage):
                yield Tap(f"up.{index}", step.block.out_channels, stride)
                index += 1


def _block_taps(step: nn.Module, before: int, stride: int) -> Iterator[Tap]:
    """Yield the taps of a step's residual block, if it has one; its first normalisation comes before it resamples."""
    block = step.block if isinstance(step, Stage) else step
    if isinstance(block, ResBlock):
        first, second = block.norm_taps
        yield Tap(first, block.norm1.num_channels, before, replaces=True)
        yield Tap(second, block.out_channels, stride, replaces=True)
        yield Tap(block.tap, block.out_channels, stride)


def _depths(depth: int | Sequence[int], levels: int) -> Sequence[int]:
    """Return how deep the transformers of each level are."""
    depths = [depth] * levels if isinstance(depth, int) else depth
    if len(depths) != levels:
        raise IncompatibleParts(
            "every level needs a depth of its transformers",
            where="denoiser.depth",
            expected=f"one number, or {levels} of them",
            got=", ".join(map(str, depths)),
        )
    return depths


def _attended(space: Space, levels: int, attention: Sequence[int]) -> list[bool]:
    """Return for each level whether attention stands there, or raise if the space does not fit."""
    multiple = 2 ** (levels - 1)
    if any(side % multiple for side in space.size):
        raise _indivisible(space.size, multiple)
    sizes = [max(space.size) >> level for level in range(levels)]
    missing = sorted(set(attention) - set(sizes))
    if missing:
        raise IncompatibleParts(
            "attention is asked for at a size that no level has",
            where="denoiser.attention",
            expected=f"some of {', '.join(map(str, sizes))}",
            got=", ".join(map(str, missing)),
        )
    return [size in attention for size in sizes]


def _indivisible(size: Sequence[int], multiple: int) -> IncompatibleParts:
    return IncompatibleParts(
        "the network halves the map to sides that are no whole numbers",
        where="denoiser",
        expected=f"sides that are multiples of {multiple}",
        got=" × ".join(map(str, size)),
        remedy="crop or pad the data, or take fewer multipliers",
    )
