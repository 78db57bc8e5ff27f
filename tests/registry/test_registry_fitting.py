"""A class that was written for another version of its interface is told before anything calls it."""

from abc import ABC, abstractmethod
from typing import final

import pytest

from diffloom_registry import BrokenPlugin, Kind, Registry


class Walker(ABC):
    @abstractmethod
    def step(self, x: int, t: int, *, noise: int = 0) -> int: ...

    @final
    def walk(self, x: int) -> int:
        return self.step(x, 0)

    @property
    @final
    def pace(self) -> int:
        return 1


class Other(ABC):
    @abstractmethod
    def turn(self) -> int: ...


class Turner(Other):
    def turn(self) -> int:
        return 1


class Fine(Walker):
    def step(self, x: int, t: int, *, noise: int = 0, more: int = 1) -> int:
        return x


class Loose(Walker):
    def step(self, *args: int, **named: int) -> int:
        return args[0]


class Fewer(Walker):
    def step(self, x: int) -> int:  # type: ignore[override]  # that is the point
        return x


class Nameless(Walker):
    def step(self, x: int, t: int) -> int:  # type: ignore[override]  # that is the point
        return x


class Demanding(Walker):
    def step(self, x: int, t: int, scale: int, *, noise: int = 0) -> int:  # type: ignore[override]  # that is the point
        return x


class Replacing(Fine):
    def walk(self, x: int) -> int:  # type: ignore[misc]  # that is the point
        return x


class Faster(Fine):
    pace = 2  # type: ignore[misc]  # that is the point


def registry() -> Registry:
    return Registry([Kind("walker", f"{__name__}:Walker", "walks"), Kind("other", f"{__name__}:Other", "turns")])


@pytest.mark.parametrize("cls", [Fine, Loose])
def test_a_method_that_takes_all_that_the_interface_gives_is_fine(cls: type) -> None:
    with registry().add("walker", "mine", cls):
        pass


@pytest.mark.parametrize(
    ("cls", "shown"),
    [(Fewer, "step(x)"), (Nameless, "step(x, t)"), (Demanding, "step(x, t, scale, *, noise=0)")],
)
def test_a_method_with_other_arguments_is_refused_with_both(cls: type, shown: str) -> None:
    with pytest.raises(BrokenPlugin) as caught:
        registry().add("walker", "mine", cls)
    error = caught.value
    assert (error.expected, error.got) == ("step(x, t, *, noise=0)", shown)
    assert "cannot be called as Walker says" in error.message


@pytest.mark.parametrize(("cls", "name"), [(Replacing, "walk"), (Faster, "pace")])
def test_what_is_final_is_not_replaced(cls: type, name: str) -> None:
    with pytest.raises(BrokenPlugin, match=f"it replaces '{name}', which is final in Walker"):
        registry().add("walker", "mine", cls)


def test_a_class_of_another_kind_is_told_which() -> None:
    with pytest.raises(BrokenPlugin, match="publish it as an other"):
        registry().add("walker", "mine", Turner)
