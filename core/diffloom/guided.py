"""Guided: a system's denoiser as samplers see it, with all that can be made once per sample made once.

Law: the answer is that of the plain system, asked anew at every step. What static conditioners say is joined once, and
the denoiser prepares it once (keys and values of a context); the others are asked at every step, in the same order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffloom.condition import Condition
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
    """

    conditioner: Conditioner
    code: Code


class Telling:
    """What a denoiser is told during one walk, as a function of x_t and t.

    Args:
        denoiser: Who is told; it prepares what stays the same.
        conditioners: By name, in the recipe's order.
        codes: Their codes.
    """

    def __init__(self, denoiser: Denoiser, conditioners: Mapping[str, Conditioner], codes: Mapping[str, Code]) -> None:
        self.parts: list[Condition | Asked] = []
        for static, run in groupby(conditioners.items(), lambda item: item[1].static):
            if static:
                said = Condition()
                for name, conditioner in run:
                    said = said | conditioner(codes[name], _NEVER, _NEVER, said)
                self.parts.append(denoiser.prepare(said))
            else:
                self.parts += [Asked(conditioner, codes[name]) for name, conditioner in run]

    def __call__(self, x_t: Tensor, t: Tensor) -> Condition:
        """Return the condition at time t."""
        told = Condition()
        for part in self.parts:
            told = told | (part.conditioner(part.code, x_t, t, told) if isinstance(part, Asked) else part)
        return told


class Guided:
    """A system's denoiser with guidance folded in.

    Args:
        system: Whose denoiser, conditioners and guidance.
        codes: The conditioners' codes for the batch.
    """

    def __init__(self, system: "System", codes: Mapping[str, Code]) -> None:
        self.system = system
        stacked, self.weights = branches(system.conditioners, codes, system.guidance())
        with system.autocast(system.device):
            self.told = Telling(system.denoiser, system.conditioners, stacked)

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Return the denoised x_t (B, C, *spatial) at time t (0-d or (B,))."""
        system, count = self.system, len(self.weights)
        x = torch.cat([x_t] * count) if count > 1 else x_t
        times = torch.cat([t] * count) if count > 1 and t.dim() else t
        output = combine(system.answer(x, times, self.told), self.weights, x_t.shape[1])
        schedule = system.schedule
        return Denoised.from_output(system.plan.prediction, output, x_t, schedule.alpha(t), schedule.sigma(t))
