"""Guided: a system's denoiser as samplers see it, with all that can be made once per sample made once.

Law: the answer is that of the plain system, asked anew at every step. What static conditioners say is joined once, and
the denoiser prepares it once (keys and values of a context); the others are asked at every step, in the same order,
and those that look at the time alone only once for all branches of guidance. Who is told during a part of the walk is
replaced by its null in the rest, and needs no branch of its own there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from diffloom.condition import Condition, stack
from diffloom.conditioner import Code, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.guidance import branches, combine
from diffloom.prediction import Denoised
from diffloom.window import Window, weights, windows

if TYPE_CHECKING:
    from diffloom.system import System

_NEVER = torch.empty(0)  # x_t and t for those who do not look at them


@dataclass(frozen=True)
class Asked:
    """A conditioner that is asked at every step.

    Attributes:
        conditioner: Who is asked.
        code: What it once made of the batch.
        copies: How many equal branches share the code: what it says is repeated for them.
    """

    conditioner: Conditioner
    code: Code
    copies: int = 1

    def __call__(self, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        """Return what it says to all branches, one after another along the batch."""
        if self.copies == 1:
            return cast(Condition, self.conditioner(self.code, x_t, t, given))
        own = slice(len(x_t) // self.copies)
        said = self.conditioner(self.code, x_t[own], t[own] if t.dim() else t, Condition())
        return cast(Condition, stack([said] * self.copies))


@dataclass(frozen=True)
class Telling:
    """What a denoiser is told during one walk, as a function of x_t and t.

    Attributes:
        parts: What stays the same, prepared by the denoiser, and who is asked at every step; in the recipe's order.
    """

    parts: tuple[Condition | Asked, ...]

    def __call__(self, x_t: Tensor, t: Tensor) -> Condition:
        """Return the condition at time t."""
        told = Condition()
        for part in self.parts:
            told = told | (part(x_t, t, told) if isinstance(part, Asked) else part)
        return told

    def by_tokens(self) -> bool:
        """Return whether all that is said are tokens, the same at every step."""
        still = [part for part in self.parts if isinstance(part, Condition)]
        return len(still) == len(self.parts) and all(part.speaks_by_tokens() for part in still)

    def within(self, window: Window) -> "Telling":
        """Return what is told about one window of the map; tokens and vectors, and what they became, are shared."""
        parts = (
            replace(said, code=window.part(said.code)) if isinstance(said, Asked) else window.part(said)
            for said in self.parts
        )
        return Telling(cast(tuple[Condition | Asked, ...], tuple(parts)))


def telling(
    denoiser: Denoiser,
    conditioners: Mapping[str, Conditioner],
    codes: Mapping[str, Code],
    copies: Mapping[str, int] = MappingProxyType({}),
) -> Telling:
    """Return what a denoiser is told during one walk.

    Args:
        denoiser: Who is told; it prepares what stays the same.
        conditioners: By name, in the recipe's order.
        codes: Their codes.
        copies: Of those whose code stands for several equal branches: how many.
    """
    parts: list[Condition | Asked] = []
    for static, run in groupby(conditioners.items(), lambda item: item[1].static):
        if static:
            said = Condition()
            for name, conditioner in run:
                said = said | conditioner(codes[name], _NEVER, _NEVER, said)
            parts.append(denoiser.prepare(said))
        else:
            for name, conditioner in run:
                shared = copies.get(name, 1)
                still = _join(parts) if shared == 1 else Condition()
                parts.append(Asked(conditioner, conditioner.prepare(codes[name], still), shared))
    return Telling(tuple(parts))


def _join(parts: Iterable[Condition | Asked]) -> Condition:
    """Return what is said at every step alike."""
    said = Condition()
    for part in parts:
        said = said if isinstance(part, Asked) else said | part
    return said


@dataclass(frozen=True)
class Ladder:
    """What a denoiser is told in every branch of guidance, one after another along the batch.

    Attributes:
        told: What it is told.
        weights: Of the branches.
        shared: Whether the denoiser makes what is the same in all branches once.
    """

    told: Telling
    weights: Sequence[float]
    shared: bool


class Guided:
    """A system's denoiser with guidance folded in; maps larger than the plan's window are seen window by window.

    Args:
        system: Whose denoiser, conditioners and guidance.
        codes: The conditioners' codes for the batch.
    """

    def __init__(self, system: "System", codes: Mapping[str, Code]) -> None:
        self.system, self.codes = system, codes
        self.spans = system.spans()
        self._ladders: dict[frozenset[str], Ladder] = {}
        if not self.spans:
            self._ladder(frozenset())

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Return the denoised x_t (B, C, *spatial) at time t (0-d or (B,))."""
        side, schedule = self.system.plan.window, self.system.schedule
        large = side is not None and max(x_t.shape[2:]) > side
        ladder = self._ladder(self._silent(t))
        output = self._blended(x_t, t, ladder) if large else self._output(x_t, t, ladder)
        return Denoised.from_output(self.system.plan.prediction, output, x_t, schedule.alpha(t), schedule.sigma(t))

    def _silent(self, t: Tensor) -> frozenset[str]:
        """Return who is not told at time t; for times of each item, at the latest."""
        if not self.spans:
            return frozenset()
        time = float(t.max())
        return frozenset(name for name, span in self.spans.items() if time not in span)

    def _ladder(self, silent: frozenset[str]) -> Ladder:
        """Return the branches where some conditioners are not told; made once."""
        if silent not in self._ladders:
            parts = self.system.conditioners
            scales = {name: scale for name, scale in self.system.guidance().items() if name not in silent}
            codes = {name: parts[name].null(code) if name in silent else code for name, code in self.codes.items()}
            stacked, weights = branches(parts, codes, scales)
            shared = [name for name, part in parts.items() if part.only_time and name not in scales]
            stacked |= {name: codes[name] for name in shared}
            with self.system.autocast(self.system.device):
                told = telling(self.system.denoiser, parts, stacked, dict.fromkeys(shared, len(weights)))
            self._ladders[silent] = Ladder(told, weights, self.system.denoiser.shares and told.by_tokens())
        return self._ladders[silent]

    def _output(self, x_t: Tensor, t: Tensor, ladder: Ladder) -> Tensor:
        """Return the network's output (B, C′, *spatial), all branches combined."""
        count = 1 if ladder.shared and not t.dim() else len(ladder.weights)
        x = torch.cat([x_t] * count) if count > 1 else x_t
        times = torch.cat([t] * count) if count > 1 and t.dim() else t
        return combine(self.system.answer(x, times, ladder.told), ladder.weights, x_t.shape[1])

    def _blended(self, x_t: Tensor, t: Tensor, ladder: Ladder) -> Tensor:
        """Return the network's output for a map of any size, window by window; see `diffloom.window`."""
        side = self.system.plan.window or 1
        total, out = torch.zeros_like(x_t[:1, :1]), None
        for window in windows((x_t.shape[2], x_t.shape[3]), side, side // 2):
            made = self._output(window.cut(x_t), t, replace(ladder, told=ladder.told.within(window)))
            out = made.new_zeros(*made.shape[:2], *x_t.shape[2:]) if out is None else out
            counts = weights(window.height, window.width).to(made)
            window.cut(out).add_(made * counts)
            window.cut(total).add_(counts)
        if out is None:
            raise ValueError("an empty map has no windows")
        return out / total
