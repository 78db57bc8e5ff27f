"""Guidance: the composed formula, one batch, and the law that the weights add to one."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffloom import Condition, Conditioner, Ports
from diffloom.condition import choose, stack
from diffloom.guidance import branch_weights, branches, combine

SCALES = st.lists(st.floats(-3, 10), min_size=0, max_size=4)


class Says(Conditioner):
    gives = Ports(vector=1)

    def encode(self, batch: dict[str, Tensor]) -> Condition:
        return Condition(vector=batch["x"])

    def null(self, code: Condition) -> Condition:
        return Condition(vector=torch.zeros_like(code.vector))  # type: ignore[arg-type]


@given(SCALES)
def test_weights_of_the_branches_add_to_one(scales: list[float]) -> None:
    assert abs(sum(branch_weights(scales)) - 1) < 1e-9


@given(st.lists(st.floats(-3, 10), min_size=2, max_size=2), st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_two_conditions_compose_as_instruct_pix2pix(scales: list[float], eps: list[float]) -> None:
    e0, e1, e12 = eps
    wanted = e0 + scales[0] * (e1 - e0) + scales[1] * (e12 - e1)
    assert abs(sum(w * e for w, e in zip(branch_weights(scales), eps, strict=True)) - wanted) < 1e-6


def test_classifier_free_guidance_numbers() -> None:
    for scale, wanted in ((7.5, 16.0), (1.0, 3.0), (0.0, 1.0)):
        weights = branch_weights([scale])
        assert weights[0] * 1 + weights[1] * 3 == wanted


def test_branches_stack_codes_in_order_and_leave_out_weightless_ones() -> None:
    conditioners = {"a": Says(), "b": Says(), "free": Says()}
    codes = {name: Condition(vector=torch.full((2, 1), float(i + 1))) for i, name in enumerate(conditioners)}
    stacked, weights = branches(conditioners, codes, {"a": 2.0, "b": 3.0})
    assert weights == [-1.0, -1.0, 3.0]
    assert stacked["a"].vector.flatten().tolist() == [0, 0, 1, 1, 1, 1]
    assert stacked["b"].vector.flatten().tolist() == [0, 0, 0, 0, 2, 2]
    assert stacked["free"].vector.flatten().tolist() == [3] * 6
    stacked, weights = branches(conditioners, codes, {"a": 1.0, "b": 1.0})
    assert weights == [1.0]
    assert stacked["a"].vector.flatten().tolist() == [1, 1]
    stacked, weights = branches(conditioners, codes, {"a": 0.0})
    assert weights == [1.0]
    assert stacked["a"].vector.flatten().tolist() == [0, 0]


def test_combining_keeps_the_learned_variance_of_the_full_condition() -> None:
    output = torch.arange(8.0).view(4, 2, 1, 1)  # two branches of two items; channel 0 mean, channel 1 spread
    combined = combine(output, [-1.0, 2.0], 1)
    assert combined[:, 0].flatten().tolist() == [2 * 4 - 0, 2 * 6 - 2]
    assert combined[:, 1].flatten().tolist() == [5, 7]


def test_choosing_and_stacking_leave_absent_ports_absent() -> None:
    code = Condition(context=torch.ones(3, 2, 4))
    null = Condition(context=torch.zeros(3, 2, 4))
    mixed = choose(torch.tensor([True, False, True]), code, null)
    assert mixed.context[:, 0, 0].tolist() == [1, 0, 1]  # type: ignore[attr-defined]
    assert mixed.vector is None  # type: ignore[attr-defined]
    assert stack([code, null]).context.shape == (6, 2, 4)  # type: ignore[attr-defined]
