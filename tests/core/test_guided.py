"""What does not change is said and prepared once; the answer is that of the plain system."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.guidance import branches
from diffloom.guided import telling


class Plain(Denoiser):
    """A stranger's network: it looks at everything and prepares nothing."""

    ports = Ports(context=2, vector=1)
    out_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[0.5, -1.0], [2.0, 0.25]]))
        self.projections = 0

    def project(self, told: Condition) -> Tensor:
        self.projections += 1
        assert told.context is not None
        return told.context @ self.weight

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor:
        assert condition is not None
        seen = condition.projected.get("only")
        seen = self.project(condition) if seen is None else seen
        place = torch.arange(1, seen.shape[1] + 1).view(1, -1, 1)  # the order of the tokens counts
        out = x_t + (seen * place).sum((1, 2)).view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1)
        return out if condition.vector is None else out * condition.vector.view(-1, 1, 1, 1)


class Preparing(Plain):
    def prepare(self, condition: Condition) -> Condition:
        return (
            condition if condition.context is None else replace(condition, projected={"only": self.project(condition)})
        )


class Tokens(Conditioner):
    gives = Ports(context=2)

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def encode(self, batch: Batch) -> Condition:
        return Condition(context=batch[self.key])

    def null(self, code: Condition) -> Condition:
        return Condition(context=torch.zeros_like(batch_of(code)))


class Speed(Conditioner):
    """Says something that depends on x_t, t and what was said before."""

    gives = Ports(vector=1)

    def encode(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch["a"]), 1)

    def null(self, code: Tensor) -> Tensor:
        return 0 * code

    def forward(self, code: Tensor, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        return Condition(vector=code * (1 + t.view(-1, 1) + x_t.mean() + batch_of(given).sum()))


class Late(Tokens):
    """Gives tokens that depend on the time."""

    def forward(self, code: Condition, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        return Condition(context=batch_of(code) * t.view(-1, 1, 1))


class Clock(Tokens):
    """Looks at the time alone, and counts how often it is asked, for how many items."""

    only_time = True

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.asked: list[int] = []

    def forward(self, code: Condition, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        self.asked.append(len(batch_of(code)))
        return Condition(vector=batch_of(code).sum((1, 2))[:, None] * (1 + t.view(-1, 1)))


class Wrong(Conditioner):
    gives = Ports(vector=1)

    def encode(self, batch: Batch) -> Tensor:
        return torch.ones(1, 1)

    def null(self, code: Tensor) -> Tensor:
        return code


def batch_of(code: Condition) -> Tensor:
    assert code.context is not None
    return code.context


BATCH = {"a": torch.randn(2, 3, 2), "b": torch.randn(2, 1, 2)}
SETS: dict[str, dict[str, Conditioner]] = {
    "one": {"a": Tokens("a")},
    "two": {"a": Tokens("a"), "b": Tokens("b")},
    "edited": {"a": Tokens("a"), "speed": Speed()},
    "between": {"a": Tokens("a"), "speed": Speed(), "b": Tokens("b")},
    "late": {"a": Tokens("a"), "late": Late("b"), "speed": Speed()},
}


def plainly(conditioners: dict[str, Conditioner], x: Tensor, t: Tensor) -> Condition:
    told = Condition()
    for conditioner in conditioners.values():
        told = told | conditioner(conditioner.encode(BATCH), x, t, told)
    return told


@pytest.mark.parametrize("kind", [Plain, Preparing])
@pytest.mark.parametrize("name", list(SETS))
def test_answers_are_those_of_the_plain_system(kind: type[Plain], name: str) -> None:
    conditioners, net = SETS[name], kind()
    tell = telling(net, conditioners, {key: c.encode(BATCH) for key, c in conditioners.items()})
    for step in (0.0, 5.0):
        x, t = torch.randn(2, 1, 4, 4), torch.full((2,), step)
        assert torch.allclose(net(x, t, tell(x, t)), net(x, t, plainly(conditioners, x, t)), atol=1e-5)


@pytest.mark.parametrize(("name", "times"), [("one", 1), ("two", 1), ("edited", 1), ("between", 2), ("late", 1 + 3)])
def test_a_context_that_stays_is_projected_once(name: str, times: int) -> None:
    conditioners, net = SETS[name], Preparing()
    tell = telling(net, conditioners, {key: c.encode(BATCH) for key, c in conditioners.items()})
    for step in range(3):
        x, t = torch.randn(2, 1, 4, 4), torch.full((2,), float(step))
        net(x, t, tell(x, t))
    assert net.projections == times


def test_static_conditions_are_joined_once() -> None:
    tell = telling(Plain(), SETS["two"], {key: c.encode(BATCH) for key, c in SETS["two"].items()})
    x, t = torch.randn(2, 1, 4, 4), torch.zeros(2)
    assert batch_of(tell(x, t)) is batch_of(tell(x, t + 1))
    assert [c.static for c in SETS["between"].values()] == [True, False, True]


def test_a_code_that_is_no_condition_needs_a_forward() -> None:
    with pytest.raises(TypeError, match="must define forward"):
        telling(Plain(), {"wrong": Wrong()}, {"wrong": torch.ones(1, 1)})


@pytest.mark.parametrize("level", [torch.tensor(3.0), torch.full((4,), 3.0)])
def test_who_looks_at_the_time_alone_is_asked_once_for_all_branches(level: Tensor) -> None:
    conditioners: dict[str, Conditioner] = {"a": Tokens("a"), "clock": Clock("b")}
    codes = {key: c.encode(BATCH) for key, c in conditioners.items()}
    both, weights = branches(conditioners, codes, {"a": 2.0})
    x = torch.randn(2, 1, 4, 4)
    plain = telling(Plain(), conditioners, both)(torch.cat([x, x]), level)
    clock = conditioners["clock"]
    assert isinstance(clock, Clock)
    shared = telling(Plain(), conditioners, both | {"clock": codes["clock"]}, {"clock": len(weights)})
    told = shared(torch.cat([x, x]), level)
    assert clock.asked == [4, 2]
    assert told.vector is not None
    assert plain.vector is not None
    assert torch.equal(told.vector, plain.vector)
