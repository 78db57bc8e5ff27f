"""From the registry to checks that run: every component, built from its defaults or its examples."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffloom.kinds import registry as installed
from diffloom.testing.contracts.autoencoders import AutoencoderContract
from diffloom.testing.contracts.base import Case, Contract, Make, NotApplicable, Outcome
from diffloom.testing.contracts.conditioners import ConditionerContract
from diffloom.testing.contracts.data import DatasetContract, TransformContract
from diffloom.testing.contracts.denoisers import DenoiserContract
from diffloom.testing.contracts.metrics import MetricContract
from diffloom.testing.contracts.samplers import SamplerContract
from diffloom.testing.contracts.schedules import ScheduleContract
from diffloom.testing.contracts.tasks import TaskContract
from diffloom.testing.standins import provided
from diffloom_registry import Registry
from diffloom_registry.errors import ConfigError, DiffloomError

CONTRACTS: Mapping[str, type[Contract]] = {
    contract.kind: contract
    for contract in (
        ScheduleContract,
        DenoiserContract,
        AutoencoderContract,
        ConditionerContract,
        SamplerContract,
        TaskContract,
        DatasetContract,
        TransformContract,
        MetricContract,
    )
}
"""Kind → contract."""

LARGEST = 60_000_000
"""Parameters of the largest network that is tested as its defaults make it."""


def cases(
    kinds: Iterable[str] | None = None, names: Iterable[str] | None = None, *, registry: Registry = installed
) -> Iterator[Case]:
    """Yield every check of every registered component.

    Args:
        kinds: Only these kinds; all that have a contract by default.
        names: Only these names.
        registry: Whose components.

    Raises:
        BrokenPlugin: When one is reached that cannot be loaded.
    """
    wanted = None if names is None else set(names)
    for kind in CONTRACTS if kinds is None else kinds:
        for name in registry.names(kind):
            if wanted is None or name in wanted:
                yield from component_cases(kind, name, registry=registry)


def chosen(wanted: Iterable[str], *, registry: Registry = installed) -> list[tuple[str, str]]:
    """Return (kind, name) of every component that is asked for, each once.

    Args:
        wanted: `KIND/NAME`, a whole `KIND`, or the name of a distribution for all that it publishes.
        registry: Whose components.

    Raises:
        UnknownComponent: If there is none of that name.
        DiffloomError: If it is nothing of these.
    """
    found: dict[tuple[str, str], None] = {}
    for text in wanted:
        kind, _, name = text.partition("/")
        if kind in CONTRACTS and name:
            registry.get(kind, name)
            found[kind, name] = None
        elif kind in CONTRACTS:
            found |= dict.fromkeys((kind, known) for known in registry.names(kind))
        else:
            entries = [e for e in registry.entries() if _plain(e.distribution or "") == _plain(text)]
            found |= dict.fromkeys((entry.kind, entry.name) for entry in entries if entry.kind in CONTRACTS)
            if not entries:
                raise DiffloomError(
                    "there is nothing to test",
                    where=text,
                    expected=f"KIND/NAME with one of the kinds {', '.join(CONTRACTS)}; a KIND; or a distribution",
                    remedy="see `diffloom list`",
                )
    return list(found)


def _plain(distribution: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return distribution.lower().replace("_", "-").replace(".", "-")


def component_cases(kind: str, name: str, *, registry: Registry = installed) -> Iterator[Case]:
    """Yield every check of one component, for each of its examples.

    Raises:
        UnknownComponent: If there is none of that name.
        BrokenPlugin: If it cannot be loaded.
    """
    cls = registry.get(kind, name)
    expected: Mapping[str, str] = getattr(cls, "expected_failures", {})
    contract = CONTRACTS[kind](provided())
    for number, example in enumerate(_examples(kind, name, cls)):
        make = maker(kind, name, example, contract.provided, registry)
        for check in contract.checks():
            yield Case(kind, name, check, make, expected.get(check.name), number)


def _examples(kind: str, name: str, cls: type) -> Iterable[Mapping[str, object]]:
    """Return the parameter sets to test: the component's examples, or its defaults."""
    examples: Any = getattr(cls, "examples", ({},))
    if not callable(examples):
        return examples  # type: ignore[no-any-return]  # a component may declare anything
    folder = Path(_folder().name) / kind / name
    folder.mkdir(parents=True, exist_ok=True)
    return examples(folder)  # type: ignore[no-any-return]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for examples' files, which goes when Python ends."""
    return tempfile.TemporaryDirectory(prefix="diffloom-examples-")


def verify(kind: str, name: str, *, registry: Registry = installed) -> list[Outcome]:
    """Run a component's contract and return what became of each check."""
    return [case.run() for case in component_cases(kind, name, registry=registry)]


def maker(
    kind: str, name: str, example: Mapping[str, object], parts: Mapping[type, object], registry: Registry
) -> Make:
    """Return what builds a component from an example, with other parts standing in.

    It raises NotApplicable where parameters without default are in no example, or a network is too large.
    """

    def make(**changes: object) -> Any:
        data = {**example, **changes, "type": name}
        try:
            config = registry.validate(kind, data, strict=False)
        except ConfigError as error:
            if example or (changes and _valid(kind, name, registry)):
                raise
            raise NotApplicable(f"its defaults are not enough, and it has no `examples`: {error}") from error
        if kind in ("denoiser", "autoencoder", "conditioner") and not example:
            with torch.device("meta"):
                part = registry.instantiate(config, parts)
            size = sum(p.numel() for p in part.parameters()) if isinstance(part, nn.Module) else 0
            if size > LARGEST:
                raise NotApplicable(f"{size:,} parameters are too many for a test; give it small `examples`")
        torch.manual_seed(0)
        return registry.instantiate(config, parts)

    return make


def _valid(kind: str, name: str, registry: Registry) -> bool:
    """Tell whether a component's defaults are enough."""
    try:
        registry.validate(kind, {"type": name}, strict=False)
    except ConfigError:
        return False
    return True
