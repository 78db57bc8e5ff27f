"""Every registered schedule and sampler keeps its contract, and the contracts catch what breaks it."""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from diffloom.arithmetic import weighted
from diffloom.grid import Grid
from diffloom.kinds import registry
from diffloom.noise import Noise
from diffloom.sampler import Model, Sampler, State
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.testing.contracts import (
    CONTRACTS,
    Case,
    Falsified,
    NotApplicable,
    applies,
    cases,
    for_all,
    require,
    verify,
)
from diffloom.testing.standins import PlainAutoencoder, PlainSampler, TinyDenoiser, provided

ALL = list(cases(["schedule", "sampler"]))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in ALL])
def test_contract(case: Case, request: pytest.FixtureRequest) -> None:
    if case.expected_failure is not None:
        request.applymarker(pytest.mark.xfail(strict=True, reason=case.expected_failure))
    try:
        case.check.run(case.make)
    except NotApplicable as reason:
        pytest.skip(str(reason))


def test_samplers_are_tested_in_their_other_settings_too() -> None:
    tested = {(case.name, case.example) for case in ALL if case.kind == "sampler"}
    assert {("dpm-solver++", 4), ("unipc", 2), ("ddim", 2), ("edm", 1), ("pndm", 1), ("ddpm", 1)} <= tested


def broken(name: str, change: Callable[[State, State], State]) -> type[Sampler]:
    """Return the plain sampler with something done to the state that a step gives."""

    def step(self: Sampler, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        return change(state, PlainSampler.step(self, model, schedule, grid, state, noise))  # type: ignore[arg-type]

    return dataclass(kw_only=True, eq=False)(type(name, (PlainSampler,), {"step": step}))


def in_place(before: State, after: State) -> State:
    before.x.mul_(0.999)
    return after


def of_the_batch(before: State, after: State) -> State:
    return State(after.x - 1e-3 * after.x.mean(), after.index)


def unseeded(before: State, after: State) -> State:
    return State(after.x + 1e-3 * torch.randn_like(after.x), after.index)


def promoted(before: State, after: State) -> State:
    return State(after.x.double(), after.index)


def wrong_coefficient(before: State, after: State) -> State:
    return State(weighted((1.001, after.x)), after.index)


def skipping(before: State, after: State) -> State:
    return State(after.x, after.index + 1)


class Claims(PlainSampler):
    order = 2


def fails(cls: type[Sampler]) -> set[str]:
    with registry.add("sampler", "broken", cls):
        return {outcome.check for outcome in verify("sampler", "broken") if outcome.status == "failed"}


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (in_place, "step-is-pure"),
        (of_the_batch, "items-do-not-depend-on-their-batch"),
        (unseeded, "resuming-is-bit-equal"),
        (promoted, "precision"),
        (wrong_coefficient, "point-is-found"),
        (wrong_coefficient, "claimed-order"),
        (skipping, "step-is-pure"),
    ],
)
def test_a_broken_sampler_is_caught(change: Callable[[State, State], State], check: str) -> None:
    cls = broken("Broken", change)
    with registry.add("sampler", "broken", cls):
        found = [case for case in cases(["sampler"], ["broken"]) if case.check.name == check]
        assert [case.run().status for case in found] == ["failed"]


def test_the_smallest_example_is_found() -> None:
    with registry.add("sampler", "broken", broken("Broken", wrong_coefficient)):
        outcomes = {outcome.check: outcome for outcome in verify("sampler", "broken")}
    point = outcomes["point-is-found"]
    assert point.example.endswith("n = 1")
    assert point.example.startswith("schedule = Tabled(alpha=[")
    assert point.example.count(",") <= 2  # a schedule of one level
    assert "they differ by 0.0007" in point.message
    assert outcomes["step-is-pure"].example == ""


def test_a_law_holds_for_all_or_is_falsified() -> None:
    def law(n: int) -> None:
        require(n < 7, f"{n} is too much")

    numbers = st.integers(0, 100)
    for_all(law, st.fixed_dictionaries({"n": numbers.filter(lambda n: n < 7)}))
    with pytest.raises(Falsified, match=r"^7 is too much \(smallest example: n = 7\)$"):
        for_all(law, st.fixed_dictionaries({"n": numbers}))

    def silent(n: int) -> None:
        applies(n < 7, "it says nothing")

    with pytest.raises(NotApplicable, match="says nothing"):
        for_all(silent, st.fixed_dictionaries({"n": numbers}))


@pytest.mark.parametrize("kind", ["conditioner", "dataset", "transform"])
def test_parts_with_examples_keep_their_contracts(kind: str) -> None:
    for case in cases([kind]):
        assert case.run().status in ("passed", "not applicable"), case.id


def test_a_false_claim_of_order_is_caught() -> None:
    assert fails(Claims) == {"claimed-order"}


def test_an_expected_failure_is_strict() -> None:
    class Honest(Claims):
        expected_failures = {"claimed-order": "it is Euler's method"}  # noqa: RUF012  # as authors write it

    class Wrong(PlainSampler):
        expected_failures = {"claimed-order": "it is Euler's method"}  # noqa: RUF012

    for cls, status in ((Honest, "expected failure"), (Wrong, "failed"), (PlainSampler, "passed")):
        with registry.add("sampler", "tried", cls):
            (found,) = [case for case in cases(["sampler"], ["tried"]) if case.check.name == "claimed-order"]
            assert found.run().status == status


class Rising(Schedule):
    def __init__(self, *, steps: int = 8) -> None:
        self.steps = steps

    def table(self) -> tuple[Tensor, Tensor]:
        alpha = torch.linspace(0.9, 0.1, self.steps, dtype=torch.float64)
        alpha[3] = 0.95
        return alpha, (1 - alpha**2).sqrt()


class Moody(Schedule):
    def __init__(self, *, steps: int = 8) -> None:
        self.steps = steps

    def table(self) -> tuple[Tensor, Tensor]:
        angle = (torch.arange(1, self.steps + 1) + 0.1 * torch.rand(self.steps)) / (self.steps + 1) * math.pi / 2
        return angle.double().cos(), angle.double().sin()


@pytest.mark.parametrize(("cls", "check"), [(Rising, "table"), (Moody, "repeatable")])
def test_a_broken_schedule_is_caught(cls: type[Schedule], check: str) -> None:
    with registry.add("schedule", "broken", cls):
        failed = {outcome.check for outcome in verify("schedule", "broken") if outcome.status == "failed"}
    assert check in failed


@pytest.mark.parametrize(
    ("kind", "cls"), [("denoiser", TinyDenoiser), ("autoencoder", PlainAutoencoder), ("sampler", PlainSampler)]
)
def test_the_stand_ins_keep_their_contracts(kind: str, cls: type) -> None:
    contract, parts = CONTRACTS[kind], provided()
    space = parts[Space]
    needed: dict[str, dict[str, Any]] = {"denoiser": {"space": space}, "autoencoder": {"channels": 3}}
    arguments = needed.get(kind, {})
    for check in contract(parts).checks():
        try:
            check.run(lambda **changes: cls(**arguments, **changes))
        except NotApplicable:
            continue


def test_the_plugin_imports_nothing_heavy() -> None:
    code = "import sys, diffloom.testing.plugin; print(*(m in sys.modules for m in ('torch', 'hypothesis')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("interface", [Schedule, Sampler])
def test_an_interface_cannot_be_built(interface: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        interface()
