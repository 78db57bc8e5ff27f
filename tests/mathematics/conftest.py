"""What the tests of the mathematics share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors are fastest on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one() -> torch.Tensor:
    """x = 1, one number, float64."""
    return torch.ones(1, 1, dtype=torch.float64)
