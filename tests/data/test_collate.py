import re

import pytest
import torch

from diffloom.data import collate
from diffloom.errors import DataError


def test_each_kind_of_value_gets_its_kind_of_column() -> None:
    samples = [
        {
            "image": torch.full((1, 2, 2), i),
            "label": i,
            "gsd": i / 2,
            "night": i > 0,
            "caption": str(i),
            "box": [i],
        }
        for i in range(3)
    ]
    batch = collate(samples)
    assert batch["image"].shape == (3, 1, 2, 2)
    assert batch["label"].dtype == torch.int64
    assert batch["label"].tolist() == [0, 1, 2]
    assert batch["gsd"].dtype == torch.float32
    assert batch["gsd"].tolist() == [0, 0.5, 1]
    assert batch["night"].dtype == torch.bool
    assert batch["caption"] == ["0", "1", "2"]
    assert batch["box"] == [[0], [1], [2]]


def test_whole_numbers_beside_fractions_become_fractions() -> None:
    assert collate([{"x": 1}, {"x": 0.5}])["x"].tolist() == [1.0, 0.5]


def test_tensors_of_different_shapes_are_refused_by_name_and_shape() -> None:
    with pytest.raises(DataError, match=re.escape("'mask'")) as caught:
        collate([{"mask": torch.zeros(1, 4, 4)}, {"mask": torch.zeros(1, 4, 5)}])
    assert "(1, 4, 4) and (1, 4, 5)" in str(caught.value)


def test_samples_with_different_keys_and_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="different keys"):
        collate([{"image": torch.zeros(1)}, {"image": torch.zeros(1), "label": 1}])
    with pytest.raises(DataError, match="no samples"):
        collate([])
