"""Adapter: a small network looks at a hint once per sample, and its features are added on the way down (T2I-Adapter).

    F̂_n = F_n + ω A_n(c)

at the end of each level, where the sum goes on and is kept for the way up (Mou et al. 2023, arXiv 2302.08453). It knows
no time and costs nothing per step. `end: τ` carries control in the first part of the steps alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom.autoencoder import Autoencoder
from diffloom.condition import Affine, Condition, Ports, Tap
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import IncompatibleParts
from diffloom.layout import Layout, Weld
from diffloom_controlnet.hint import hint_of
from diffloom_nets import Conv2d

Count = Annotated[int, Field(gt=0)]
Kind = Literal["full", "light"]

_WAY_DOWN = "down."
_NARROWER = 4  # times, inside a light stage


class Residual(nn.Module):
    """x + conv(relu(conv3×3(x))), the second convolution 1×1 in the full network, 3×3 in the light one."""

    def __init__(self, channels: int, kind: Kind) -> None:
        super().__init__()
        size = 1 if kind == "full" else 3
        self.first = Conv2d(channels, channels, 3, padding=1)
        self.second = Conv2d(channels, channels, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map, in its own shape."""
        return x + self.second(functional.relu(self.first(x)))  # type: ignore[no-any-return]  # a tensor


class Stage(nn.Module):
    """The blocks of one level: halved first by averaging after the first level, brought to its width, and back.

    Args:
        channels: Of the input.
        out: Of the features.
        kind: A light stage is a quarter as wide inside.
        blocks: How many.
        halved: Whether the input is averaged over 2×2 pixels.
    """

    def __init__(self, channels: int, out: int, *, kind: Kind, blocks: int, halved: bool) -> None:
        super().__init__()
        inner = out if kind == "full" else out // _NARROWER
        self.halved = halved
        self.enter = Conv2d(channels, inner, 1) if kind == "light" or channels != inner else None
        self.blocks = nn.ModuleList([Residual(inner, kind) for _ in range(blocks)])
        self.leave = Conv2d(inner, out, 1) if kind == "light" else None

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, out, ⌈H/2⌉, ⌈W/2⌉), or of the size of x where that is not halved."""
        if self.halved:
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        if self.enter is not None:
            x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return x if self.leave is None else self.leave(x)


class Adapter(Conditioner):
    """Features of a hint, added at the end of each level of the denoiser's way down; several add up.

    For Stable Diffusion a full one has 77,369,280 parameters (77,000,640 for hints of one channel), a light one
    18,689,200. Not zero at the start, by design. Its null adds nothing.

    Args:
        denoiser: Whose way down is edited; freeze it.
        autoencoder: How many times smaller what is diffused is than the hint.
        key: Where a batch has the hint, (B, channels, H, W) in [0, 1], as large as the image.
        channels: Of the hint; one channel is repeated.
        kind: full or light.
        blocks: Residual blocks of each level; 2 in a full network and 4 in a light one by default.
        scale: ω.

    Raises:
        IncompatibleParts: The denoiser publishes no way down whose levels halve the map one after another.
    """

    examples: ClassVar[Sequence[Mapping[str, Any]]] = ({}, {"kind": "light", "blocks": 1})

    def __init__(
        self,
        *,
        denoiser: Denoiser,
        autoencoder: Autoencoder,
        key: str = "hint",
        channels: Count = 3,
        kind: Kind = "full",
        blocks: Count | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        levels = {tap.stride: tap for tap in denoiser.taps if tap.name.startswith(_WAY_DOWN)}
        taps = [levels[stride] for stride in sorted(levels)]
        _require([tap.stride for tap in taps] == [2**i for i in range(len(taps))] and bool(taps), taps)
        count = blocks or (2 if kind == "full" else 4)
        widths, planes = [tap.channels for tap in taps], channels * autoencoder.stride**2
        first = widths[0] if kind == "full" else planes
        self.key, self.needs, self.channels, self.stride = key, (key,), channels, autoencoder.stride
        self.kind: Kind = kind
        self.scale, self.taps = scale, [tap.name for tap in taps]
        self.stem = Conv2d(planes, widths[0], 3, padding=1) if kind == "full" else None
        self.stages = nn.ModuleList(
            [
                Stage(before, out, kind=kind, blocks=count, halved=i > 0)
                for i, (before, out) in enumerate(zip([first, *widths[:-1]], widths, strict=True))
            ]
        )
        self.gives = Ports(affine={tap.name: tap.channels for tap in taps})

    def encode(self, batch: Batch) -> Condition:
        """Return the shifts of every level."""
        hint = hint_of(batch, self.key, self.channels, self.stride)
        h = functional.pixel_unshuffle(hint.to(next(self.parameters()).dtype), self.stride)
        h = h.contiguous(memory_format=torch.channels_last)
        h = h if self.stem is None else self.stem(h)
        edits = {}
        for name, stage in zip(self.taps, self.stages, strict=True):
            h = stage(h)
            edits[name] = Affine(shift=h if self.scale == 1 else h * self.scale)
        return Condition(affine=edits)

    def null(self, code: Condition) -> Condition:
        """Return shifts by nothing."""
        shifts = {name: edit.shift for name, edit in code.affine.items()}
        return Condition(
            affine={name: Affine(shift=torch.zeros_like(shift)) for name, shift in shifts.items() if shift is not None}
        )

    def layouts(self) -> Sequence[Layout]:
        """Return diffusers' layout and that of the original files."""
        widths, stages = list(self.gives.affine.values()), len(self.stages)
        blocks = len(self.stages[0].blocks)  # type: ignore[arg-type]  # a Stage's list
        found = [Layout("t2i-adapter", tuple(self._welds(self._original)))]
        if self.kind == "full" or widths[-1:] == widths[-2:-1]:
            config = {
                "_class_name": "T2IAdapter",
                "adapter_type": f"{self.kind}_adapter",
                "in_channels": self.channels,
                "channels": widths if self.kind == "full" else widths[: stages - 1],
                "num_res_blocks": blocks,
                "downscale_factor": self.stride,
            }
            found.insert(0, Layout("diffusers", tuple(self._welds(self._diffusers)), config=config))
        return tuple(found)

    def _welds(self, named: Any) -> Iterator[Weld]:
        for key in self.state_dict():
            module, _, tensor = key.rpartition(".")
            yield Weld(key, (f"{named(module)}.{tensor}",))

    def _diffusers(self, module: str) -> str:
        if module == "stem":
            return "adapter.conv_in"
        _, stage, *rest = module.split(".")
        if rest[0] != "blocks":
            return f"adapter.body.{stage}.{'in_conv' if rest[0] == 'enter' else 'out_conv'}"
        return f"adapter.body.{stage}.resnets.{rest[1]}.{'block1' if rest[2] == 'first' else 'block2'}"

    def _original(self, module: str) -> str:
        if module == "stem":
            return "conv_in"
        _, stage, *rest = module.split(".")
        first = int(stage) * len(self.stages[0].blocks)  # type: ignore[arg-type]  # a Stage's list
        if rest[0] != "blocks":
            end = "in_conv" if rest[0] == "enter" else "out_conv"
            return f"body.{first if self.kind == 'full' else stage}.{end}"
        block = "block1" if rest[2] == "first" else "block2"
        return f"body.{first + int(rest[1])}.{block}" if self.kind == "full" else f"body.{stage}.body.{rest[1]}.{block}"


def _require(fits: bool, taps: Sequence[Tap]) -> None:
    if not fits:
        raise IncompatibleParts(
            "the denoiser's way down has no levels of one stride after another",
            where="t2i-adapter",
            expected="taps down.N at strides 1, 2, 4, …",
            got=", ".join(f"{tap.name} at {tap.stride}" for tap in taps) or "no such taps",
        )
