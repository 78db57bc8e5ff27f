"""Audit: does everything that should learn learn, does what is frozen stay, and does the output listen.

The first two are looked at around the first step, the third with trained weights: a condition whose exchange between
samples leaves the output as it was is ignored.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffloom.conditioner import Batch
from diffloom.noise import Noise
from diffloom.system import System

_DEAF = 1e-5


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        without_gradient: Trained parameters that the loss does not reach.
        moved_though_frozen: Frozen parameters that changed.
        ignored_conditions: Conditioners whose exchange between samples does not change the output.
    """

    without_gradient: tuple[str, ...] = ()
    moved_though_frozen: tuple[str, ...] = ()
    ignored_conditions: tuple[str, ...] = ()

    def findings(self) -> list[str]:
        """Return one sentence per kind of finding; none when all is well."""
        said = {
            "no gradient reaches": self.without_gradient,
            "these moved although they are frozen:": self.moved_though_frozen,
            "the output ignores the condition": self.ignored_conditions,
        }
        return [f"{text} {_listed(names)}" for text, names in said.items() if names]

    def as_dict(self) -> dict[str, tuple[str, ...]]:
        """Return the findings as plain data."""
        return asdict(self)


def unreached(parameters: Mapping[str, nn.Parameter]) -> tuple[str, ...]:
    """Return the names of the parameters that got no gradient at all."""
    return tuple(name for name, p in parameters.items() if p.grad is None)


def fingerprint(system: System) -> dict[str, Tensor]:
    """Return two sums of every frozen parameter, to see later whether it moved."""
    frozen = {name: p for name, p in system.named_parameters() if not p.requires_grad}
    return {name: torch.stack([p.double().sum(), p.double().square().sum()]) for name, p in frozen.items()}


def moved(system: System, before: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the names of the frozen parameters whose sums differ from `before`."""
    now = fingerprint(system)
    return tuple(name for name, sums in before.items() if not torch.equal(sums, now[name]))


@torch.no_grad()
def ignored(system: System, batch: Batch, noise: Noise) -> tuple[str, ...]:
    """Return the conditioners that can be shown another sample of the batch without changing the output."""
    if not system.conditioners:
        return ()
    codes = system.codes(batch)
    clean = torch.empty(len(noise), *system.space.shape, device=system.device)
    x_t = noise.normal(clean, "audit")
    t = torch.full((len(noise),), (system.schedule.steps - 1) // 2, device=system.device)
    told = system.output(x_t, t, codes)
    deaf = []
    for name, conditioner in system.conditioners.items():
        seen = {key: batch[key] for key in (*conditioner.needs, *conditioner.wants) if key in batch}
        other = {key: _moved_on(value) for key, value in seen.items()}
        if all(_same(seen[key], other[key]) for key in seen):
            continue
        exchanged = conditioner.encode({**batch, **other})
        heard = (system.output(x_t, t, {**codes, name: exchanged}) - told).abs().max()
        if heard <= _DEAF * told.abs().max().clamp_min(1e-12):
            deaf.append(name)
    return tuple(deaf)


def _moved_on(value: Any) -> Any:
    """Return a batch's values, each in the place of the next sample."""
    return value.roll(1, 0) if isinstance(value, Tensor) else [*value[-1:], *value[:-1]]


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else list(one) == list(other)


def _listed(names: tuple[str, ...], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
