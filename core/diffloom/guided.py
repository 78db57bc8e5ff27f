"""Guided: a system's denoiser as samplers see it, with all that can be made once per sample made once.

Law: the answer is that of the plain system, asked anew at every step. What static conditioners say is joined once, and
the denoiser prepares it once (keys and values of a context); the others are asked at every step, in the same order,
and those that look at the time alone only once for all branches of guidance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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


class Telling:
    """What a denoiser is told during one walk, as a function of x_t and t.

    Args:
        denoiser: Who is told; it prepares what stays the same.
        conditioners: By name, in the recipe's order.
        codes: Their codes.
        copies: Of those whose code stands for several equal branches: how many.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditioners: Mapping[str, Conditioner],
        codes: Mapping[str, Code],
        copies: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.parts: list[Condition | Asked] = []
        for static, run in groupby(conditioners.items(), lambda item: item[1].static):
            if static:
                said = Condition()
                for name, conditioner in run:
                    said = said | conditioner(codes[name], _NEVER, _NEVER, said)
                self.parts.append(denoiser.prepare(said))
            else:
                self.parts += [Asked(conditioner, codes[name], copies.get(name, 1)) for name, conditioner in run]

    def __call__(self, x_t: Tensor, t: Tensor) -> Condition:
        """Return the condition at time t."""
        told = Condition()
        for part in self.parts:
            told = told | (part(x_t, t, told) if isinstance(part, Asked) else part)
        return told


class Guided:
    """A system's denoiser with guidance folded in.

    Args:
        system: Whose denoiser, conditioners and guidance.
        codes: The conditioners' codes for the batch.
    """

    def __init__(self, system: "System", codes: Mapping[str, Code]) -> None:
        self.system = system
        scales, parts = system.guidance(), system.conditioners
        stacked, self.weights = branches(parts, codes, scales)
        shared = [name for name, part in parts.items() if part.only_time and name not in scales]
        stacked |= {name: codes[name] for name in shared}
        with system.autocast(system.device):
            self.told = Telling(system.denoiser, parts, stacked, dict.fromkeys(shared, len(self.weights)))

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Return the denoised x_t (B, C, *spatial) at time t (0-d or (B,))."""
        system, count = self.system, len(self.weights)
        x = torch.cat([x_t] * count) if count > 1 else x_t
        times = torch.cat([t] * count) if count > 1 and t.dim() else t
        output = combine(system.answer(x, times, self.told), self.weights, x_t.shape[1])
        schedule = system.schedule
        return Denoised.from_output(system.plan.prediction, output, x_t, schedule.alpha(t), schedule.sigma(t))
