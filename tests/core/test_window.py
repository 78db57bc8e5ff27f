"""Windows over large maps: where they lie, what they weigh, and when the blend is exact."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffloom import Condition, Denoiser, Noise, Space
from diffloom.condition import Affine
from diffloom.guided import Asked, Telling
from diffloom.system import Plan, System
from diffloom.testing.standins import PlainAutoencoder, PlainSampler, vp
from diffloom.window import Window, starts, weights, windows


@pytest.mark.parametrize(("length", "wanted"), [(128, [0, 32, 64]), (100, [0, 32, 36]), (64, [0]), (40, [0])])
def test_windows_begin_where_published(length: int, wanted: list[int]) -> None:
    assert list(starts(length, 64, 32)) == wanted


@settings(deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), side=st.integers(2, 40), data=st.data())
def test_every_pixel_is_covered_and_no_window_leaves_the_map(
    height: int, width: int, side: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, side - 1))
    covered = torch.zeros(height, width)
    for window in windows((height, width), side, overlap):
        part = window.cut(covered)
        assert part.shape == (min(side, height), min(side, width))
        part.add_(1)
    assert covered.min() >= 1


def test_weights_are_the_published_gaussian() -> None:
    found = weights(64, 64)
    assert float(found.max()) == pytest.approx(1, abs=0.02)
    assert float(found[0, 0] / found.max()) == pytest.approx(3e-11, rel=0.1)
    torch.testing.assert_close(found, found.flip(0, 1))
    torch.testing.assert_close(found, found.T)


def test_a_window_cuts_maps_of_every_proportion() -> None:
    window = Window(4, 8, 8, 4, (16, 16))
    small, large = torch.arange(64.0).view(1, 1, 8, 8), torch.arange(1024.0).view(1, 1, 32, 32)
    assert torch.equal(window.cut(small), small[..., 2:6, 4:6])
    assert torch.equal(window.cut(large), large[..., 8:24, 16:24])
    assert window.cut(torch.ones(1, 3, 1, 1)).shape == (1, 3, 1, 1)
    with pytest.raises(ValueError, match="does not fit a map of 6"):
        window.cut(torch.ones(1, 1, 6, 6))


def test_a_code_keeps_its_tokens_and_loses_the_rest_of_its_maps() -> None:
    code = Condition(
        context=torch.ones(1, 5, 3),
        vector=torch.ones(1, 4),
        concat=torch.ones(1, 2, 16, 16),
        affine={"mid": Affine(shift=torch.ones(1, 8, 8, 8)), "up": Affine(scale=torch.ones(1, 8, 1, 1))},
    )
    told = Telling((code,)).within(Window(4, 8, 8, 4, (16, 16))).parts[0]
    assert not isinstance(told, Asked)
    assert told.concat is not None
    assert told.concat.shape == (1, 2, 8, 4)
    assert told.context is code.context
    assert told.vector is code.vector
    assert told.affine["mid"].shift is not None
    assert told.affine["mid"].shift.shape == (1, 8, 4, 2)
    assert told.affine["up"].scale is not None
    assert told.affine["up"].scale.shape == (1, 8, 1, 1)


class Linear(Denoiser):
    """One convolution: linear in x_t, deaf to everything else."""

    out_channels = 2

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 2, kernel, padding=kernel // 2, dtype=torch.float64)

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor:
        """Return the convolution of x_t."""
        out: Tensor = self.conv(x_t)
        return out


def system(window: int | None, kernel: int) -> System:
    torch.manual_seed(0)
    plan = Plan(data_space=Space(2, (16, 16)), window=window)
    parts: dict[str, Any] = {"autoencoder": PlainAutoencoder(channels=2), "task": torch.nn.Identity()}
    return System(plan, schedule=vp(), denoiser=Linear(kernel), sampler=PlainSampler(), **parts)


@settings(deadline=None, max_examples=20)
@given(height=st.integers(9, 40), width=st.integers(9, 40))
@torch.no_grad()
def test_a_pointwise_network_sees_no_windows(height: int, width: int) -> None:
    x, t = torch.randn(1, 2, height, width, dtype=torch.float64), torch.tensor(3)
    whole, parts = (system(side, 1).model({}, Noise([0]))(x, t) for side in (None, 8))
    torch.testing.assert_close(parts.x0, whole.x0, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_network_that_looks_around_agrees_away_from_the_edges_of_windows() -> None:
    x, t = torch.randn(1, 2, 24, 24, dtype=torch.float64), torch.tensor(3)
    whole, parts = (system(side, 3).model({}, Noise([0]))(x, t) for side in (None, 16))
    inner = torch.ones(24, 24, dtype=torch.bool)
    for row, column in product(starts(24, 16, 8), starts(24, 16, 8)):
        for edge in (row, row + 15):
            inner[edge, column : column + 16] &= edge in (0, 23)
        for edge in (column, column + 15):
            inner[row : row + 16, edge] &= edge in (0, 23)
    torch.testing.assert_close(parts.eps[..., inner], whole.eps[..., inner], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(parts.eps, whole.eps, atol=1e-5)


@torch.no_grad()
def test_one_window_is_no_window() -> None:
    x, t = torch.randn(1, 2, 16, 12, dtype=torch.float64), torch.tensor(3)
    whole, single = (system(side, 3).model({}, Noise([0]))(x, t) for side in (None, 16))
    assert torch.equal(whole.eps, single.eps)
