"""A contract is a class whose methods `check_…` are the checks; each takes a builder of the component under test."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from diffloom.space import Space
from diffloom.testing.standins import batch

if TYPE_CHECKING:
    from diffloom.conditioner import Conditioner
    from diffloom.task import Task

Make = Callable[..., Any]
"""Builds the component under test anew; keyword arguments replace parameters."""

Status = Literal["passed", "failed", "not applicable", "expected failure"]


class NotApplicable(Exception):  # noqa: N818  # not an error: the check has nothing to say about this component
    """A component does not declare what a check is about; the message says what that is."""


class Falsified(AssertionError):  # noqa: N818  # not an error of ours: what was found out
    """A law that should hold for all of something does not.

    Attributes:
        reason: What is wrong.
        example: The smallest example that hypothesis found, as `name = value` separated by commas.
    """

    def __init__(self, reason: str, example: str) -> None:
        super().__init__(f"{reason} (smallest example: {example})")
        self.reason, self.example = reason, example


@dataclass(frozen=True)
class Check:
    """One law of a contract.

    Attributes:
        name: Says the law, in words joined by `-`.
        law: The same as a sentence.
        run: Raises AssertionError where the component breaks it, NotApplicable where it is about something
            else.
    """

    name: str
    law: str
    run: Callable[[Make], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one check.

    Attributes:
        check: Its name.
        status: What happened.
        message: Why, where it did not pass.
        example: The smallest failing example, where the check draws examples.
    """

    check: str
    status: Status
    message: str = ""
    example: str = ""


@dataclass(frozen=True)
class Case:
    """One check of one component, ready to run.

    Attributes:
        kind: The component's kind.
        name: Its name.
        check: The check.
        make: Builds the component.
        expected_failure: Why it must fail, or `None`.
        example: Which of the component's examples this is, from 0.
    """

    kind: str
    name: str
    check: Check
    make: Make
    expected_failure: str | None = None
    example: int = 0

    @property
    def id(self) -> str:
        """`kind/name/check`, as test reports show it."""
        number = f"[{self.example}]" if self.example else ""
        return f"{self.kind}/{self.name}{number}/{self.check.name}"

    def run(self) -> Outcome:
        """Run the check; a check that fails as expected is an expected failure, one that should and passes fails."""
        try:
            self.check.run(self.make)
        except NotApplicable as reason:
            return Outcome(self.check.name, "not applicable", str(reason))
        except Exception as error:  # noqa: BLE001  # a component's own code may raise anything
            if self.expected_failure is not None:
                return Outcome(self.check.name, "expected failure", self.expected_failure)
            example = error.example if isinstance(error, Falsified) else ""
            said = error.reason if isinstance(error, Falsified) else described(error)
            return Outcome(self.check.name, "failed", f"{self.check.law}: {said}", example)
        if self.expected_failure is not None:
            message = f"it passed, and was expected to fail: {self.expected_failure}"
            return Outcome(self.check.name, "failed", message)
        return Outcome(self.check.name, "passed")


@dataclass(frozen=True)
class Contract:
    """Base of all contracts.

    Attributes:
        kind: The kind of component that it is for.
        provided: What the system provides, by interface.
    """

    kind: ClassVar[str]
    provided: Mapping[type, object] = field(default_factory=dict)

    def checks(self) -> list[Check]:
        """Return the checks, in the order in which they are written; a check's law is its docstring."""
        found = []
        for name in [name for base in reversed(type(self).__mro__) for name in vars(base)]:
            if name.startswith("check_"):
                method = getattr(self, name)
                law = (method.__doc__ or name).strip().splitlines()[0].rstrip(".")
                found.append(Check(name.removeprefix("check_").replace("_", "-"), law, method))
        return found


def for_all(law: Callable[..., None], drawn: SearchStrategy[dict[str, Any]], *, examples: int = 25) -> None:
    """Try a law on drawn examples, the same ones every time.

    Args:
        law: Called with what was drawn as keyword arguments; raises where it does not hold.
        drawn: Draws the law's arguments, as `hypothesis.strategies.fixed_dictionaries` does.
        examples: How many are tried.

    Raises:
        Falsified: Where the law fails, with the smallest example that was found.
    """
    last: dict[str, Any] = {}

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn)
    def tried(values: dict[str, Any]) -> None:
        last.clear()  # the last example that is tried is the smallest
        last.update(values)
        law(**values)

    try:
        tried()
    except NotApplicable:
        raise
    except Exception as error:
        raise Falsified(described(error), ", ".join(f"{name} = {value!r}" for name, value in last.items())) from error


def described(error: Exception) -> str:
    """Return what an error says: a broken law's own words, or the error with its class."""
    return str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"


def takes(part: object, name: str) -> bool:
    """Tell whether a component's constructor has a parameter of this name."""
    return name in inspect.signature(type(part)).parameters


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with a message unless a law holds; unlike `assert`, in optimised Python too."""
    if not condition:
        raise AssertionError(message)


def is_a(value: object, cls: type, what: str) -> None:
    """Raise AssertionError unless a value is of a class, with both named."""
    require(isinstance(value, cls), f"{what} is of type {type(value).__name__}, not {cls.__name__}")


def applies(condition: bool, message: str) -> None:
    """Raise NotApplicable unless a component declares what a check is about."""
    if not condition:
        raise NotApplicable(message)


def asked(part: "Conditioner | Task", count: int, space: Space) -> dict[str, Any]:
    """Return a made-up batch of what a part needs and wants; keys that are not conventional come from `example_batch`.

    Raises:
        NotApplicable: Where nothing says what a key holds.
    """
    made_by_it = getattr(type(part), "example_batch", None)
    own: Mapping[str, Any] = {} if made_by_it is None else made_by_it(count, space)
    reads = (*part.needs, *getattr(part, "wants", ()))
    made = batch([key for key in reads if key not in own], count, space)
    remedy = "give its class a static method `example_batch(count, space)` that does"
    applies(made is not None, f"no made-up batch has {', '.join(reads)}; {remedy}")
    return {**own, **(made or {})}


def close(got: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """Raise AssertionError unless two tensors agree, relative to the larger of 1 and their size."""
    require(got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)} is not {tuple(wanted.shape)}")
    size = max(1.0, float(wanted.detach().double().abs().max())) if wanted.numel() else 1.0
    off = float((got.detach().double() - wanted.detach().double()).abs().max()) if wanted.numel() else 0.0
    require(off <= tolerance * size, f"{what}: they differ by {off:.3g}, and may by {tolerance * size:.3g}")


def equal(got: Tensor, wanted: Tensor, what: str) -> None:
    """Raise AssertionError unless two tensors are equal to the bit."""
    require(got.dtype == wanted.dtype and torch.equal(got, wanted), f"{what}: they are not equal to the bit")
