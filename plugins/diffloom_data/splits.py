"""Splits: which samples train, which choose and which test, decided for each sample by its name alone.

A hash of (seed, name), as a fraction u of the largest, says where a sample belongs:

    u < test: test    test ≤ u < test + validation: validation    otherwise: train

Adding or removing files therefore never moves another from one part to another, and a validation part is taken out of
the training part alone; the parts' sizes are as asked for up to chance.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from diffloom.errors import DataError
from diffloom.noise import mix

Split = Literal["train", "validation", "test", "all"]
TestFraction = Annotated[float, Field(gt=0, lt=1)]
ValidationFraction = Annotated[float, Field(ge=0, lt=1)]

Name = TypeVar("Name", str, int)

_LARGEST = 2**63


def chosen(
    names: Sequence[Name], split: Split, fraction: float, seed: int, *, validation: float = 0.0, where: str
) -> list[Name]:
    """Return those of `names` that are in the split, in their order.

    Args:
        names: What tells the samples apart: relative file names, or row numbers.
        split: The part asked for.
        fraction: Share of the test part, 0 … 1.
        seed: Another seed, another division.
        validation: Share of the validation part, 0 … 1.
        where: What is divided, for the error.

    Raises:
        DataError: No sample is in the split, or both shares together leave nothing to train on.
    """
    if fraction + validation >= 1:
        raise DataError(
            "the test and the validation part leave nothing to train on",
            where=where,
            expected="test_fraction + validation_fraction below 1",
            got=f"{fraction:g} + {validation:g}",
        )
    if split == "all":
        return list(names)
    found = [name for name in names if _part(name, fraction, validation, seed) == split]
    if not found:
        share = "validation" if split == "validation" else "test"
        raise DataError(
            f"the {split} part is empty",
            where=where,
            got=f"none of {len(names)} samples at test_fraction {fraction:g} and validation_fraction {validation:g}",
            remedy=f"change `{share}_fraction` or `split_seed`, or add data",
        )
    return found


def _part(name: str | int, test: float, validation: float, seed: int) -> Split:
    place = mix("split", seed, name)
    if place < test * _LARGEST:
        return "test"
    return "validation" if place < (test + validation) * _LARGEST else "train"
