"""A contract is a class whose methods `check_…` are the checks; each takes a builder of the component under test."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

Make = Callable[..., Any]
"""Builds the component under test anew; keyword arguments replace parameters."""

Status = Literal["passed", "failed", "not applicable", "expected failure"]


class NotApplicable(Exception):  # noqa: N818  # not an error: the check has nothing to say about this component
    """A component does not declare what a check is about; the message says what that is."""


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
    """

    check: str
    status: Status
    message: str = ""


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
            return Outcome(self.check.name, "failed", f"{self.check.law}: {type(error).__name__}: {error}")
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


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with a message unless a law holds; unlike `assert`, in optimised Python too."""
    if not condition:
        raise AssertionError(message)


def applies(condition: bool, message: str) -> None:
    """Raise NotApplicable unless a component declares what a check is about."""
    if not condition:
        raise NotApplicable(message)


def close(got: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """Raise AssertionError unless two tensors agree, relative to the larger of 1 and their size."""
    require(got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)} is not {tuple(wanted.shape)}")
    size = max(1.0, float(wanted.detach().abs().max())) if wanted.numel() else 1.0
    off = float((got.detach().double() - wanted.detach().double()).abs().max()) if wanted.numel() else 0.0
    require(off <= tolerance * size, f"{what}: they differ by {off:.3g}, and may by {tolerance * size:.3g}")


def equal(got: Tensor, wanted: Tensor, what: str) -> None:
    """Raise AssertionError unless two tensors are equal to the bit."""
    require(got.dtype == wanted.dtype and torch.equal(got, wanted), f"{what}: they are not equal to the bit")
