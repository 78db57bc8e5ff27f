import pickle

import pytest
import torch
from sklearn.datasets import load_digits

from diffloom.data import collate
from diffloom_data.digits import Digits


def test_parts_are_disjoint_and_stratified_and_together_are_everything() -> None:
    train, test, everything = (Digits(split=split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1438, 359, 1797)
    of_test = torch.bincount(collate([test.get(i) for i in range(len(test))])["label"])
    of_all = torch.bincount(torch.from_numpy(load_digits().target))
    assert (of_test.double() / of_all - 0.2).abs().max() < 0.005
    seen = {train.read(i)["image"].numpy().tobytes() for i in range(len(train))}
    assert not seen & {test.read(i)["image"].numpy().tobytes() for i in range(len(test))}


def test_at_the_original_size_the_values_are_those_of_the_source() -> None:
    digits, source = Digits(size=8, split="all"), load_digits()
    for index in (0, 7, 1796):
        sample = digits.get(index)
        assert torch.equal((sample["image"][0].double() + 1) * 8, torch.from_numpy(source.images[index]))
        assert sample["label"] == source.target[index]


@pytest.mark.parametrize("size", [4, 11, 16, 32])
def test_every_size_stays_within_the_range_and_matches_the_space(size: int) -> None:
    digits = Digits(size=size)
    images = torch.stack([digits.get(i)["image"] for i in range(64)])
    assert digits.space.shape == (1, size, size)
    assert tuple(images.shape) == (64, *digits.space.shape)
    assert images.dtype == torch.float32
    assert images.min() >= -1
    assert images.max() <= 1
    assert images.std() > 0.5


def test_enlarging_keeps_the_picture() -> None:
    small, large = Digits(size=8), Digits(size=32)
    back = torch.nn.functional.avg_pool2d(large.get(3)["image"], 4)
    both = torch.stack([back.flatten(), small.get(3)["image"].flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.98


def test_a_pickled_data_set_gives_the_same_samples() -> None:
    digits = Digits(split="test")
    again = pickle.loads(pickle.dumps(digits))
    assert torch.equal(again.get(5)["image"], digits.get(5)["image"])
    with pytest.raises(IndexError):
        digits.get(359)
