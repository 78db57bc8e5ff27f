"""What does not change is said and prepared once; the answer is that of the plain system."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.guidance import branches
from diffloom.guided import telling
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom.system import Conditioning, Plan, System
from diffloom.testing.standins import PlainAutoencoder, PlainSampler, vp
from diffloom_ddpm.generate import Generate


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


class Looking(Conditioner):
    """Says a vector at every step, and counts what it was asked."""

    gives = Ports(vector=1)

    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[tuple[Tensor, Condition]] = []
        self.asked: list[Tensor] = []

    def encode(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch["a"]), 1)

    def null(self, code: Tensor) -> Tensor:
        return 0 * code

    def prepare(self, code: Tensor, given: Condition) -> Tensor:
        self.prepared.append((code, given))
        return 10 * code

    def forward(self, code: Tensor, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        self.asked.append(code)
        return Condition(vector=code)


class Listening(Denoiser):
    """Answers with its vector, times a weight."""

    ports = Ports(vector=1)
    out_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor:
        assert condition is not None
        assert condition.vector is not None
        self.seen.append(condition.vector.flatten())
        return condition.vector.view(-1, 1, 1, 1) * self.weight * torch.ones_like(x_t)


def walking(
    conditioners: dict[str, Conditioner], steps: int = 10, net: Listening | None = None, **how: Conditioning
) -> tuple[System, Listening]:
    net = net or Listening()
    space = Space(1, (4, 4), low=None, high=None)
    plan = Plan(space, conditioning=how)
    system = System(
        plan,
        autoencoder=PlainAutoencoder(channels=1),
        task=Generate(),
        schedule=vp(100),
        denoiser=net,
        sampler=PlainSampler(steps=steps),
        conditioners=conditioners,
    )
    return system.eval(), net


class Counting(Listening):
    """Answers with x_t plus the sum of its tokens, for every branch, and counts the items that it was given."""

    ports = Ports(context=2, vector=1)
    shares = True

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor:
        assert condition is not None
        self.seen.append(x_t)
        return condition.spread(self.weight * x_t) + batch_of(condition).sum((1, 2)).view(-1, 1, 1, 1)


class Named(Conditioner):
    """Says the same vector at every step."""

    gives = Ports(vector=1)

    def encode(self, batch: Batch) -> Condition:
        return Condition(vector=torch.ones(len(batch["a"]), 1))

    def null(self, code: Condition) -> Condition:
        return Condition(vector=torch.zeros(2, 1))


@pytest.mark.parametrize(
    ("parts", "level", "items"),
    [
        ({"a": Tokens("a"), "b": Tokens("b")}, torch.tensor(3.0), 2),
        ({"a": Tokens("a")}, torch.full((2,), 3.0), 4),  # every item has a time of its own
        ({"a": Tokens("a"), "named": Named()}, torch.tensor(3.0), 4),  # branches may differ in more than their tokens
        ({"a": Tokens("a"), "asked": Looking()}, torch.tensor(3.0), 4),
        ({"a": Tokens("a"), "late": Late("b")}, torch.tensor(3.0), 4),  # who looks at x_t sees one for each branch
    ],
)
def test_branches_that_differ_by_tokens_share_x_t(
    parts: dict[str, Conditioner], level: Tensor, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 1, 4, 4)
    system, net = walking(parts, net=Counting(), a=Conditioning(guidance=3.0))
    with torch.inference_mode():
        out = system.model(BATCH)(x, level).x0
        monkeypatch.setattr(Counting, "shares", False)
        plain = system.model(BATCH)(x, level).x0
    assert [len(seen) for seen in net.seen] == [items, 4]
    assert torch.allclose(out, plain)


def test_who_is_asked_at_every_step_prepares_once_for_all_branches_and_sees_what_stays() -> None:
    asked = Looking()
    system, _ = walking({"a": Tokens("a"), "asked": asked}, asked=Conditioning(guidance=3.0))
    with torch.inference_mode():
        system.walk(BATCH, Noise([0, 1]))
    ((code, given),) = asked.prepared
    assert code.flatten().tolist() == [0, 0, 1, 1]
    assert torch.equal(batch_of(given), torch.cat([BATCH["a"]] * 2))
    assert len(asked.asked) == 10
    assert asked.asked[0].flatten().tolist() == [0, 0, 10, 10]


@pytest.mark.parametrize(
    ("steps", "start", "end", "told"),
    [
        (10, 0.2, 0.8, range(2, 8)),
        (10, 0.0, 0.3, range(3)),
        (10, 0.7, 1.0, range(7, 10)),
        (4, 0.25, 0.75, range(1, 3)),
        (7, 0.3, 0.9, range(3, 6)),
        (50, 0.1, 0.29, range(5, 14)),
        (100, 0.07, 0.29, range(7, 29)),  # in floats 0.07 · 100 is above 7, and 0.29 · 100 below 29
    ],
)
def test_a_part_of_the_walk_is_that_of_the_published_rule(steps: int, start: float, end: float, told: range) -> None:
    exact = [Fraction(str(value)) for value in (start, end)]
    rule = [i for i in range(steps) if not (Fraction(i, steps) < exact[0] or Fraction(i + 1, steps) > exact[1])]
    assert rule == list(told)
    asked = Looking()
    system, net = walking({"asked": asked}, steps, asked=Conditioning(start=start, end=end))
    with torch.inference_mode():
        system.walk(BATCH, Noise([0, 1]))
    assert [i for i, seen in enumerate(net.seen) if bool(seen.any())] == list(told)
    assert len(asked.prepared) == 2  # inside and outside
    net.seen.clear()
    with torch.inference_mode():  # a walk that begins later makes the same steps of the same grid
        system.walk(BATCH, Noise([0, 1]), x0=torch.zeros(2, 1, 4, 4), strength=0.5)
    first = steps - len(net.seen)
    assert first == steps - steps // 2
    assert [first + i for i, seen in enumerate(net.seen) if bool(seen.any())] == [i for i in told if i >= first]


def test_outside_its_part_a_guided_condition_needs_no_branch() -> None:
    system, net = walking({"asked": Looking()}, asked=Conditioning(guidance=3.0, start=0.5))
    with torch.inference_mode():
        system.walk(BATCH, Noise([0, 1]))
    assert [len(seen) for seen in net.seen] == [2] * 5 + [4] * 5


def test_a_part_that_holds_no_step_holds_no_time() -> None:
    grid = PlainSampler(steps=10).grid(vp(100))
    for start, end in ((0.75, 0.79), (0.9, 0.1), (0.95, 1.0)):
        span = grid.span(start, end)
        assert not span
        assert not any(t in span for t in grid.times)
    assert all(t in grid.span(0, 1) for t in grid.times)


def test_a_step_lasts_until_the_next_begins() -> None:
    grid = PlainSampler(steps=10).grid(vp(100))
    span = grid.span(0.2, 0.8)
    between = [(a + b) / 2 for a, b in pairwise(grid.times)]
    assert [i for i, t in enumerate(between) if t in span] == list(range(2, 8))
    rounded = [float(torch.tensor(t, dtype=torch.float32)) for t in grid.times[:-1]]
    assert [i for i, t in enumerate(rounded) if t in span] == list(range(2, 8))
