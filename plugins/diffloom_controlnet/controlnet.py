"""ControlNet: a trainable copy of a denoiser's way down tells the frozen denoiser what a hint shows.

    y = F(x; Θ) + Z(F(x + Z(c; Θ_z1); Θ_c); Θ_z2)

(Zhang, Rao, Agrawala 2023, arXiv 2302.05543). Θ_c begins as Θ, the hint c comes in after the stem, and Z are zero
convolutions: at the start not a bit of the answer changes, and gradients reach them first, then the copy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom.autoencoder import Autoencoder
from diffloom.condition import Affine, Condition, Ports, Tap
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import IncompatibleParts
from diffloom.layout import Layout
from diffloom_controlnet.hint import HintEncoder, hint_of
from diffloom_controlnet.layouts import layouts
from diffloom_controlnet.strengths import Weighting, strengths
from diffloom_nets import Conv2d, zero

Count = Annotated[int, Field(gt=0)]

_WHERE = "controlnet"
_STEM, _MIDDLE = "down.0", "mid"


class Control(NamedTuple):
    """What a ControlNet makes of a batch, once per sample.

    Attributes:
        hint: Features of the hints, (B, width of the stem, H, W).
        on: (B,) bool, on the CPU: who is controlled.
    """

    hint: Tensor
    on: Tensor


class Walk(NamedTuple):
    """What stays the same during a walk.

    Attributes:
        hint: Features of those who are controlled.
        rows: Their places in the batch; `None` for all.
        gate: (B, 1, 1, 1), 0 for those who are not controlled where all are computed; `None` where it is 1.
        tokens: Length of the context that was projected.
        projected: What the copy made of the context.
    """

    hint: Tensor
    rows: Tensor | None
    gate: Tensor | None
    tokens: int
    projected: Mapping[str, Tensor]


class ControlNet(Conditioner):
    """A copy of the denoiser up to its middle, told the same and a hint, that shifts every skip and the middle.

    List it after the conditioners that it shall hear too, such as text. Several add up, each with its own hint and
    scale. Its null is the denoiser alone, and costs nothing: with the `guidance` of the text, control acts where the
    text does and not on the unconditional answer (guess mode, with `weighting: guess`, or `resolution` for prompts).

    Args:
        denoiser: What is copied, with the weights that it has; freeze it.
        autoencoder: How many times smaller what is diffused is than the hint.
        key: Where a batch has the hint, (B, channels, H, W) in [0, 1], as large as the image.
        channels: Of the hint; one channel is repeated.
        widths: Of the hint encoder, one more than it has halvings; the published ones by default.
        scale: Of everything that is added, or one for each skip and the middle.
        weighting: How strengths differ along the way down; see `strengths`.
        only_mid: Shift the middle alone, which costs less and controls less.
        pool: Average every shift over its map (for hints that say what, not where).

    Raises:
        IncompatibleParts: The denoiser lacks the taps, the hint's stride is no power of two, or there are more or fewer
            scales than shifts.
    """

    examples: ClassVar[Sequence[Mapping[str, Any]]] = ({"widths": (8,)},)

    def __init__(
        self,
        *,
        denoiser: Denoiser,
        autoencoder: Autoencoder,
        key: str = "hint",
        channels: Count = 3,
        widths: Annotated[Sequence[Count], Field(min_length=1)] | None = None,
        scale: float | Sequence[float] = 1.0,
        weighting: Weighting = "even",
        only_mid: bool = False,
        pool: bool = False,
    ) -> None:
        super().__init__()
        taps = {tap.name: tap for tap in denoiser.taps}
        targets = [tap for tap in denoiser.taps if _source(tap.name) in taps]
        _require(_STEM in taps and _MIDDLE in taps and len(targets) > 1, taps)
        self.key, self.needs = key, (key,)
        self.channels, self.stride, self.pool = channels, autoencoder.stride, pool
        self.copy = denoiser.until(_MIDDLE)
        self.hint = HintEncoder(channels, taps[_STEM].channels, stride=autoencoder.stride, widths=widths)
        self.zeros = nn.ModuleList([zero(Conv2d(tap.channels, tap.channels, 1)) for tap in targets])
        self.scales = _scales(targets, scale, weighting, only_mid)
        self.targets = [tap.name for tap in targets]
        for name, conv in zip(self.targets, self.zeros, strict=True):
            conv.requires_grad_(name in self.scales)
        self.gives = Ports(affine={tap.name: tap.channels for tap in targets if tap.name in self.scales})

    def encode(self, batch: Batch) -> Control:
        """Return the hint's features; everyone is controlled."""
        hint = hint_of(batch, self.key, self.channels, self.stride)
        return Control(self.hint(hint), torch.ones(len(hint), dtype=torch.bool, device="cpu"))

    def null(self, code: Control) -> Control:
        """Return a code that controls nobody."""
        return code._replace(on=torch.zeros_like(code.on))

    def prepare(self, code: Control, given: Condition) -> Walk:
        """Return who is controlled, and what the copy projects of their context."""
        walk = self._walk(code)
        if not len(walk.hint) or given.context is None:
            return walk
        told = self.copy.prepare(_chosen(given, walk.rows))
        return walk._replace(tokens=given.context.shape[1], projected=told.projected)

    def forward(self, code: Control | Walk, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        """Return the shifts at time t; nothing where nobody is controlled."""
        walk = code if isinstance(code, Walk) else self._walk(code)
        if not len(walk.hint) or not self.scales:
            return Condition()
        maps = self._read(walk, x_t, t, given)
        edits = {}
        for name, conv in zip(self.targets, self.zeros, strict=True):
            if name in self.scales:
                edits[name] = Affine(shift=self._placed(conv(maps[_source(name)]) * self.scales[name], walk, len(x_t)))
        return Condition(affine=edits)

    def layouts(self) -> Sequence[Layout]:
        """Return diffusers' layout and that of the original single files, where they can express the copy."""
        return tuple(layouts(self.copy, self.hint, len(self.zeros), self.channels, pool=self.pool))

    def _walk(self, code: Control) -> Walk:
        """Return who is computed: only those who are controlled, or with gradients all, and a gate."""
        if bool(code.on.all()):
            return Walk(code.hint, None, None, 0, {})
        if torch.is_grad_enabled():
            gate = code.on.to(code.hint.device, code.hint.dtype, non_blocking=True)
            return Walk(code.hint, None, gate.view(-1, 1, 1, 1), 0, {})
        rows = code.on.nonzero().flatten().to(code.hint.device, non_blocking=True)
        return Walk(code.hint[rows], rows, None, 0, {})

    def _read(self, walk: Walk, x_t: Tensor, t: Tensor, given: Condition) -> dict[str, Tensor]:
        """Return the copy's maps of those who are controlled."""
        if walk.hint.shape[2:] != x_t.shape[2:]:
            raise IncompatibleParts(
                "the hint is not as large as the image",
                where=_WHERE,
                expected=" × ".join(str(side * self.stride) for side in x_t.shape[2:]),
                got=" × ".join(str(side * self.stride) for side in walk.hint.shape[2:]),
                remedy="resize hint and image together",
            )
        told = _chosen(given, walk.rows)
        known = told.context is not None and told.context.shape[1] == walk.tokens
        told = replace(told, projected=walk.projected if known else {}, affine={_STEM: Affine(shift=walk.hint)})
        t = t if walk.rows is None or not t.dim() else t[walk.rows.to(t.device)]
        read = [_source(name) for name in self.scales]
        try:
            _, maps = self.copy(x_t if walk.rows is None else x_t[walk.rows], t, told, read=read)
        except IncompatibleParts as error:
            remedy = "list it after the conditioners that it shall hear"
            said = f"the copy is not told what the denoiser is: {error.message}"
            raise IncompatibleParts(
                said, where=_WHERE, expected=error.expected, got=error.got, remedy=remedy
            ) from error
        return maps  # type: ignore[no-any-return]  # asked to read, it gives a pair

    def _placed(self, shift: Tensor, walk: Walk, count: int) -> Tensor:
        """Return shifts in the places of those who are controlled, and 0 for the others."""
        if self.pool:
            shift = shift.mean((2, 3), keepdim=True)
        if walk.gate is not None:
            return shift * walk.gate
        if walk.rows is None:
            return shift
        return shift.new_zeros(count, *shift.shape[1:]).index_copy_(0, walk.rows, shift)


def _source(name: str) -> str:
    """Return the copy's tap that is read for a tap of the denoiser; nothing where that is none to be shifted."""
    if name == _MIDDLE:
        return name
    return name.replace("skip.", "down.", 1) if name.startswith("skip.") else ""


def _scales(
    targets: Sequence[Tap], scale: float | Sequence[float], weighting: Weighting, only_mid: bool
) -> dict[str, float]:
    """Return the strength of each shift, by its tap; those of 0 are left out.

    Raises:
        IncompatibleParts: There are more or fewer scales than shifts.
    """
    scales = [float(scale)] * len(targets) if isinstance(scale, int | float) else [float(each) for each in scale]
    if len(scales) != len(targets):
        raise IncompatibleParts(
            "every shift needs a scale",
            where=f"{_WHERE}.scale",
            expected=f"one number, or {len(targets)}: for each skip, and the middle",
            got=str(len(scales)),
        )
    found = strengths(weighting, [tap.stride for tap in targets])
    kept = [tap.name == _MIDDLE or not only_mid for tap in targets]
    each = zip(targets, scales, found, kept, strict=True)
    return {tap.name: scale * weight for tap, scale, weight, stays in each if scale and stays}


def _chosen(told: Condition, rows: Tensor | None) -> Condition:
    """Return what the items `rows` are told, without edits and what the denoiser made of it."""

    def pick(value: Tensor | None) -> Tensor | None:
        return value if value is None or rows is None else value[rows.to(value.device)]

    return Condition(pick(told.context), pick(told.context_mask), pick(told.vector), pick(told.concat))


def _require(fits: bool, taps: Mapping[str, Tap]) -> None:
    if not fits:
        raise IncompatibleParts(
            "the denoiser lacks the taps that a ControlNet reads and shifts",
            where=_WHERE,
            expected=f"{_STEM}, skip.N and down.N for each, and {_MIDDLE}",
            got=", ".join(taps) or "no taps",
        )
