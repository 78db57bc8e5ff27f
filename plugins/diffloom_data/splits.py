"""Splits: which samples train and which test, decided for each sample by its name alone.

A sample is in the test part where a hash of (seed, name), as a fraction of the largest, is below the fraction
asked for. Adding or removing files therefore never moves another from one part to the other; the parts' sizes
are as asked for up to chance.
"""

from collections.abc import Sequence
from typing import Literal, TypeVar

from diffloom.errors import DataError
from diffloom.noise import mix

Split = Literal["train", "test", "all"]

Name = TypeVar("Name", str, int)

_LARGEST = 2**63


def chosen(names: Sequence[Name], split: Split, fraction: float, seed: int, *, where: str) -> list[Name]:
    """Return those of `names` that are in the split, in their order.

    Args:
        names: What tells the samples apart: relative file names, or row numbers.
        split: The part asked for.
        fraction: Share of the test part, 0 … 1.
        seed: Another seed, another division.
        where: What is divided, for the error.

    Raises:
        DataError: No sample is in the split.
    """
    if split == "all":
        return list(names)
    found = [name for name in names if (mix("split", seed, name) < fraction * _LARGEST) == (split == "test")]
    if not found:
        raise DataError(
            f"the {split} part is empty",
            where=where,
            got=f"none of {len(names)} samples at a test fraction of {fraction:g}",
            remedy="change `test_fraction` or `split_seed`, or add data",
        )
    return found
