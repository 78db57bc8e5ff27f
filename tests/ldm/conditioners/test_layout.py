"""Layouts: published tokens, waves against their formula, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffloom.condition import Condition
from diffloom.errors import ConfigError, DataError, IncompatibleParts
from diffloom.kinds import registry
from diffloom_ldm.conditioners.grounding import Grounding, fourier
from diffloom_ldm.conditioners.layout import Layout, place_tokens
from tests.ldm.conditioners.parts import denoiser


def layout(**changes: object) -> Layout:
    small = {"classes": 10, "layers": 1, "heads": 2, "head_width": 4, **changes}
    return Layout(denoiser=denoiser(context=8), **small)  # type: ignore[arg-type]  # parameters by name


def batch(boxes: list[list[list[float]]], labels: list[list[int]]) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(boxes), "box_labels": torch.tensor(labels)}


@pytest.mark.parametrize(("x", "y", "token"), [(0, 0, 0), (1, 1, 8099), (0.25, 0.5, 3982), (1, 0, 89), (0, 1, 8010)])
def test_the_published_tokens_of_places(x: float, y: float, token: int) -> None:
    assert int(place_tokens(torch.tensor([x, y]), 90)) == token


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_place_is_rounded_as_python_rounds(x: float, y: float) -> None:
    token = int(place_tokens(torch.tensor([x, y], dtype=torch.float64), 90))
    assert token == round(89 * y) * 90 + round(89 * x)


def test_the_published_sequence_of_a_box() -> None:
    """x = .25, y = .5, w = .5, h = .25 are the tokens 3982 and 6097; padding is 8191, the length 92."""
    tokens = layout().tokens(batch([[[0.25, 0.5, 0.5, 0.25]]], [[7]]))
    assert tokens.shape == (1, 92)
    assert tokens[0, :3].tolist() == [7, 3982, 6097]
    assert set(tokens[0, 3:90].tolist()) == {8191}
    assert tokens[0, 90:].tolist() == [0, 8099]


def test_a_crop_box_ends_the_sequence() -> None:
    given = batch([[[0.0, 0.0, 1.0, 1.0]]], [[0]]) | {"crop_box": torch.tensor([[0.25, 0.5, 0.5, 0.25]])}
    assert layout().tokens(given)[0, 90:].tolist() == [3982, 6097]


def test_a_place_without_an_object_says_nothing() -> None:
    part = layout()
    one = part.tokens(batch([[[0.1, 0.2, 0.3, 0.4]]], [[3]]))
    other = part.tokens(batch([[[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.1, 0.1]]], [[3, -1]]))
    assert torch.equal(one, other)


def test_the_null_is_the_layout_of_no_objects() -> None:
    part = layout().eval()
    code = part.encode(batch([[[0.1, 0.2, 0.3, 0.4]]] * 2, [[3], [4]]))
    nothing = part.encode({"boxes": torch.zeros(2, 0, 4), "box_labels": torch.zeros(2, 0, dtype=torch.int64)})
    null = part.null(code)
    assert null.context is not None
    assert nothing.context is not None
    torch.testing.assert_close(null.context, nothing.context)


def test_the_published_network_is_expressible() -> None:
    """58,858,496 with an output layer of 512 · 8192 + 8192 that nothing uses."""
    with torch.device("meta"):
        part = Layout(classes=600, denoiser=denoiser(context=512))
    assert sum(p.numel() for p in part.parameters()) == 58_858_496 - (512 * 8192 + 8192)


@pytest.mark.parametrize("kind", ["layout", "layout-fourier"])
@pytest.mark.parametrize(
    ("boxes", "labels", "message"),
    [
        ([[[0.0, 0.0, 1.0, 1.0]]], [[10]], "has no class.*got \\[?10"),
        ([[[0.5, 0.0, 0.6, 1.0]]], [[1]], "outside of the image"),
        ([[[0.0, 0.0, 0.1, 0.1]] * 31], [[1] * 31], "more objects.*got 31"),
        ([[[0.0, 0.0, 0.1, 0.1]]], [[1, 2]], "do not belong together"),
    ],
)
def test_wrong_boxes_are_refused(kind: str, boxes: object, labels: object, message: str) -> None:
    part: Layout | Grounding = layout() if kind == "layout" else grounding()
    with pytest.raises(DataError, match=message):
        part.encode(batch(boxes, labels))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("kind", [Layout, Grounding])
def test_a_denoiser_without_cross_attention_is_refused(kind: type[Layout | Grounding]) -> None:
    with pytest.raises(IncompatibleParts, match="no context port"):
        kind(classes=3, denoiser=denoiser(vector=4))


def test_classes_that_do_not_fit_the_vocabulary_are_refused() -> None:
    config = registry.validate("conditioner", {"type": "layout", "classes": 101, "vocabulary": 101})
    with pytest.raises(ConfigError, match="101 classes"):
        registry.instantiate(config, lambda kind: denoiser(context=8) if kind.__name__ == "Denoiser" else None)


# --- waves -------------------------------------------------------------------------------------------------------


def grounding() -> Grounding:
    return Grounding(classes=10, label_width=6, hidden=8, denoiser=denoiser(context=8))


@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), st.integers(1, 8))
def test_the_waves_are_gligen_s(values: list[float], frequencies: int) -> None:
    """For every k: sin(100^{k/K} v) of the four numbers, then their cosines (Li et al. 2023, released code)."""
    expected = []
    for k in range(frequencies):
        wave = 100.0 ** (k / frequencies)
        expected += [math.sin(wave * v) for v in values] + [math.cos(wave * v) for v in values]
    found = fourier(torch.tensor(values), frequencies)
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-5, rtol=0)


def test_an_object_s_token_depends_on_it_alone_and_padding_is_learned() -> None:
    part = grounding()
    two = part.encode(batch([[[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]]], [[1, 2]])).context
    swapped = part.encode(batch([[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2]]], [[2, 1]])).context
    assert two is not None
    assert swapped is not None
    assert two.shape == (1, 30, 8)
    torch.testing.assert_close(two[:, [1, 0]], swapped[:, :2])
    null = part.null(Condition(context=two)).context
    assert null is not None
    torch.testing.assert_close(null[0, 0], two[0, 2])
    assert not torch.allclose(null[0, 0], two[0, 0])
    (reached,) = torch.autograd.grad(two[0, 2:].sum(), [part.no_label])
    assert reached.abs().sum() > 0
