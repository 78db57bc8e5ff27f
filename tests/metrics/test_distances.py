from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor, nn

from diffloom.vision_compat import ensure_torchvision
from diffloom_metrics.distances import frechet_distance, inception_score, moments, polynomial_mmd

ensure_torchvision()

from torchmetrics.image.fid import _compute_fid  # noqa: E402  after the above
from torchmetrics.image.inception import InceptionScore  # noqa: E402
from torchmetrics.image.kid import poly_mmd  # noqa: E402

SEEDS = st.integers(0, 2**31)
DIMENSIONS = st.integers(2, 6)


def features(seed: int, count: int, dimensions: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64)
    shift = torch.randn(dimensions, generator=generator, dtype=torch.float64)
    return torch.randn(count, dimensions, generator=generator, dtype=torch.float64) @ mixing + shift


def fid(x: Tensor, y: Tensor) -> float:
    return frechet_distance(*moments(x), *moments(y))


def rotation(seed: int, dimensions: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    turn: Tensor = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator).double())[0]
    return turn


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_frechet_distance_of_diagonal_gaussians() -> None:
    # ‖(1, 2)‖² + (1 − 3)² + (2 − 4)² = 5 + 4 + 4
    found = frechet_distance(
        torch.zeros(2), torch.diag(torch.tensor([1.0, 4])), torch.tensor([1.0, 2]), torch.diag(torch.tensor([9.0, 16]))
    )
    assert found == pytest.approx(13.0, abs=1e-12)


def test_frechet_distance_of_correlated_gaussians_in_closed_form() -> None:
    s_1, s_2 = matrix([2, 0.5], [0.5, 1]), matrix([1, -0.3], [-0.3, 3])
    product = s_1 @ s_2
    closed = s_1.trace() + s_2.trace() - 2 * (product.trace() + 2 * torch.linalg.det(product).sqrt()).sqrt()
    found = frechet_distance(torch.zeros(2), s_1, torch.zeros(2), s_2)
    assert found == pytest.approx(0.9293119, abs=1e-7)
    assert found == pytest.approx(float(closed), abs=1e-12)


@given(SEEDS, DIMENSIONS)
@settings(deadline=None, max_examples=40)
def test_frechet_distance_agrees_with_scipy_and_torchmetrics(seed: int, dimensions: int) -> None:
    (m_1, s_1), (m_2, s_2) = (moments(features(seed + k, 40, dimensions)) for k in (0, 1))
    found = frechet_distance(m_1, s_1, m_2, s_2)
    root = linalg.sqrtm((s_1 @ s_2).numpy()).real
    scipys = float((m_1 - m_2).square().sum() + s_1.trace() + s_2.trace() - 2 * root.trace())
    assert found == pytest.approx(scipys, rel=1e-6)
    assert found == pytest.approx(float(_compute_fid(m_1, s_1, m_2, s_2)), rel=1e-6)


@given(SEEDS, DIMENSIONS, st.floats(0.1, 10))
@settings(deadline=None, max_examples=40)
def test_frechet_distance_is_symmetric_invariant_and_scales(seed: int, dimensions: int, scale: float) -> None:
    x, y = features(seed, 30, dimensions), features(seed + 1, 50, dimensions)
    distance, turn = fid(x, y), rotation(seed, dimensions)
    assert distance > 0
    near = partial(pytest.approx, rel=1e-6, abs=1e-5)  # roots of eigenvalues near 0 keep half the digits
    assert fid(y, x) == near(distance)
    assert fid(x @ turn + 3, y @ turn + 3) == near(distance)
    assert fid(x * scale, y * scale) / scale**2 == near(distance)
    assert abs(fid(x, x)) < 1e-5


def test_singular_covariances_are_no_obstacle() -> None:
    x, y = features(0, 8, 32), features(1, 8, 32)
    root = linalg.sqrtm((moments(x)[1] @ moments(y)[1]).numpy() + 0j).real.trace()
    (m_1, s_1), (m_2, s_2) = moments(x), moments(y)
    expected = float((m_1 - m_2).square().sum() + s_1.trace() + s_2.trace()) - 2 * root
    assert fid(x, y) == pytest.approx(expected, rel=1e-4)
    assert abs(fid(x.float(), x.float())) < 1e-4


def test_moments_use_one_less_than_the_count() -> None:
    mean, covariance = moments(torch.tensor([[0.0, 1], [2, 1]]))
    assert mean.tolist() == [1, 1]
    assert covariance.tolist() == [[2, 0], [0, 0]]
    assert covariance.dtype == torch.float64
    assert moments(torch.tensor([[1.0], [3.0]]))[1].tolist() == [[2.0]]


def test_the_mean_discrepancy_of_four_points() -> None:
    x, y = matrix([1, 0], [0, 1]), matrix([1, 1], [0, 0])
    assert polynomial_mmd(x, y) == pytest.approx(-2.375, abs=1e-12)


@given(SEEDS, st.integers(3, 20))
@settings(deadline=None, max_examples=40)
def test_the_mean_discrepancy_agrees_with_torchmetrics_and_the_sums_themselves(seed: int, count: int) -> None:
    x, y = features(seed, count, 4), features(seed + 1, count, 4)
    assert polynomial_mmd(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-8, abs=1e-9)
    longer = features(seed + 2, count + 5, 4)

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 4 + 1) ** 3)

    within_x = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    within_y = [k(a, b) for i, a in enumerate(longer) for j, b in enumerate(longer) if i != j]
    across = [k(a, b) for a in x for b in longer]
    direct = sum(sum(values) / len(values) * factor for values, factor in ((within_x, 1), (within_y, 1), (across, -2)))
    assert polynomial_mmd(x, longer) == pytest.approx(direct, rel=1e-8, abs=1e-8)
    assert polynomial_mmd(longer, x) == pytest.approx(direct, rel=1e-8, abs=1e-8)


def test_the_mean_discrepancy_is_zero_on_average_for_one_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    found = torch.tensor(
        [polynomial_mmd(*torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)) for _ in range(600)]
    )
    assert abs(found.mean() / (found.std() / 600**0.5)) < 4
    assert found.min() < 0


@pytest.mark.parametrize(
    ("rows", "score"),
    [
        (torch.full((7, 5), 0.2), 1.0),
        (torch.eye(5), 5.0),
        (torch.tensor([[0.9, 0.1], [0.1, 0.9]]), 1.4449348),
        (torch.tensor([[1.0, 0, 0]] * 4), 1.0),
    ],
)
def test_inception_score_of_plain_cases(rows: Tensor, score: float) -> None:
    assert inception_score(rows) == pytest.approx(score, abs=1e-6)


@given(SEEDS, st.integers(2, 9))
@settings(deadline=None, max_examples=40)
def test_inception_score_lies_between_one_and_the_number_of_classes(seed: int, classes: int) -> None:
    logits = torch.randn(30, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    score = inception_score(logits.softmax(dim=1))
    assert 1 - 1e-12 <= score <= classes
    assert inception_score(logits.softmax(dim=1).flip(1).flip(0)) == pytest.approx(score, rel=1e-10)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torchmetrics speaks of its memory and of one split's deviation
def test_inception_score_agrees_with_torchmetrics() -> None:
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = InceptionScore(feature=nn.Identity(), splits=1)
    theirs.update(logits)
    assert inception_score(logits.softmax(dim=1)) == pytest.approx(float(theirs.compute()[0]), rel=1e-6)
