import pytest
import torch

from diffloom_nets import Convention, TimeEmbedding, TimeProjection, sinusoidal

# Published numbers: t = 10, width 8.
DDPM = [
    -0.544021110889,
    0.447670834719,
    0.021542680272,
    0.000999999833,
    -0.839071529076,
    0.894198425263,
    0.999767929535,
    0.9999995,
]
ADM = [
    -0.839071529076,
    0.540302305868,
    0.995004165278,
    0.999950000417,
    -0.544021110889,
    0.841470984808,
    0.099833416647,
    0.009999833334,
]


@pytest.mark.parametrize(("convention", "numbers"), [("ddpm", DDPM), ("adm", ADM)])
def test_the_sinusoid_has_the_published_numbers(convention: Convention, numbers: list[float]) -> None:
    exact = sinusoidal(torch.tensor(10.0, dtype=torch.float64), 8, convention)
    assert torch.allclose(exact, torch.tensor(numbers, dtype=torch.float64), atol=1e-12, rtol=0)
    single = sinusoidal(torch.tensor(10), 8, convention)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), exact, atol=1e-6, rtol=0)


def test_times_may_be_real_and_lie_between_the_integers() -> None:
    low, middle, high = sinusoidal(torch.tensor([3.0, 3.5, 4.0]), 16)
    assert not torch.equal(low, middle)
    assert (middle[:8] - low[:8]).abs().max() < (high[:8] - low[:8]).abs().max()


def test_an_odd_width_ends_with_a_zero() -> None:
    assert torch.equal(sinusoidal(torch.tensor([7]), 9)[:, :8], sinusoidal(torch.tensor([7]), 8))
    assert sinusoidal(torch.tensor([7]), 9)[0, 8] == 0


def test_one_time_is_embedded_once_and_equals_the_batch() -> None:
    embed = TimeEmbedding(16, 64)
    one, many = embed(torch.tensor(5)), embed(torch.tensor([5, 5, 5]))
    assert one.shape == (1, 64)
    assert torch.allclose(one.expand(3, -1), many, atol=1e-6)


@pytest.mark.parametrize("width", [64, 10])
def test_a_vector_is_added_in_its_own_width(width: int) -> None:
    embed = TimeEmbedding(16, 64, vector=width)
    assert (embed.project is None) == (width == 64)
    vector = torch.randn(3, width)
    told = embed(torch.tensor(5), vector)
    assert told.shape == (3, 64)
    expected = vector if embed.project is None else embed.project(vector)
    assert torch.allclose(told - embed(torch.tensor(5)), expected, atol=1e-6)


def test_one_projection_serves_blocks_of_different_widths() -> None:
    project = TimeProjection(8, [3, 5])
    embedding = torch.randn(2, 8)
    first, second = project(embedding)
    weight, bias = project.weight, project.bias
    silu = torch.nn.functional.silu(embedding)
    assert torch.allclose(first, silu @ weight[:3].T + bias[:3], atol=1e-6)
    assert torch.allclose(second, silu @ weight[3:].T + bias[3:], atol=1e-6)
