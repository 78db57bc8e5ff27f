"""The law of splits: three parts that are apart, cover everything, and stay where they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffloom.errors import DataError
from diffloom_data.splits import Split, chosen

NAMES = [f"class/{number}.png" for number in range(400)]
PARTS: tuple[Split, ...] = ("train", "validation", "test")
shares = st.tuples(st.floats(0.05, 0.45), st.floats(0.05, 0.45))


def parts(names: list[str], test: float, validation: float, seed: int) -> dict[Split, list[str]]:
    return {part: chosen(names, part, test, seed, validation=validation, where="here") for part in PARTS}


@given(shares=shares, seed=st.integers(0, 1000))
def test_three_parts_are_apart_and_cover_everything(shares: tuple[float, float], seed: int) -> None:
    found = parts(NAMES, *shares, seed)
    assert sorted(name for part in found.values() for name in part) == sorted(NAMES)
    assert all(part == [name for name in NAMES if name in set(part)] for part in found.values())
    for part, share in ((PARTS[2], shares[0]), (PARTS[1], shares[1])):  # within five standard deviations
        assert abs(len(found[part]) - 400 * share) < 5 * (400 * share * (1 - share)) ** 0.5


@given(shares=shares, seed=st.integers(0, 1000))
def test_a_validation_part_is_taken_out_of_the_training_part_alone(shares: tuple[float, float], seed: int) -> None:
    test, validation = shares
    found = parts(NAMES, test, validation, seed)
    assert chosen(NAMES, "test", test, seed, where="here") == found["test"]
    assert set(chosen(NAMES, "train", test, seed, where="here")) == {*found["train"], *found["validation"]}


@given(shares=shares, seed=st.integers(0, 1000), kept=st.sets(st.sampled_from(NAMES), min_size=300))
def test_no_name_moves_when_others_go(shares: tuple[float, float], seed: int, kept: set[str]) -> None:
    before = parts(NAMES, *shares, seed)
    for part in PARTS:
        wanted = [name for name in before[part] if name in kept]
        try:
            assert (
                chosen([n for n in NAMES if n in kept], part, shares[0], seed, validation=shares[1], where="") == wanted
            )
        except DataError:
            assert not wanted


def test_without_a_share_there_is_no_validation_part() -> None:
    with pytest.raises(DataError, match=r"the validation part is empty.* change `validation_fraction`"):
        chosen(NAMES, "validation", 0.1, 0, where="here")
    with pytest.raises(DataError, match=r"the test part is empty.* change `test_fraction`"):
        chosen(NAMES, "test", 1e-9, 0, validation=0.5, where="here")


@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_shares_that_leave_nothing_to_train_on_are_refused(part: Split) -> None:
    with pytest.raises(DataError, match=r"here: .*nothing to train on.* below 1, got 0.6 \+ 0.4"):
        chosen(NAMES, part, 0.6, 0, validation=0.4, where="here")
