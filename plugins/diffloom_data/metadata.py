"""Metadata that lie beside images: numbers about each, in the columns of a `.jsonl` or `.csv` table.

A date is written as a year, a year and month, or a day (2018, 2018-06, 2018-06-21), and becomes `year`, `month` and
`day` as far as it is known. What a table leaves empty is missing.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from diffloom.errors import DataError
from diffloom_data.captions import rows

DATE = "date"
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")
_PARTS = ("year", "month", "day")


def read_metadata(
    root: Path, names: Sequence[str], source: str, name_key: str, columns: Mapping[str, str]
) -> list[dict[str, float]]:
    """Return the metadata of each image: item → number, without those that are missing.

    Args:
        root: The folder of the images.
        names: The images, relative to `root`.
        source: A `.jsonl` or `.csv` file relative to `root`.
        name_key: The column of names; a name may lack its ending.
        columns: Item → its column; the item `date` becomes `year`, `month` and `day`.

    Raises:
        DataError: The table cannot be read, lacks a column or an image, or holds what is no number or date.
    """
    file = root / source
    found: dict[str, dict[str, float]] = {}
    lacking = set(columns.values())
    for line, row in rows(file):
        lacking -= row.keys()
        found[str(row.get(name_key))] = _numbers(row, columns, f"{file}, line {line}")
    if lacking:
        raise DataError(
            f"the table has no column '{min(lacking)}'",
            where=str(file),
            remedy="set `metadata` to the columns that it has",
        )
    told = [found.get(name, found.get(str(PurePosixPath(name).with_suffix("")))) for name in names]
    without = [name for name, one in zip(names, told, strict=True) if one is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(names)} images have no metadata",
            where=str(file),
            got=f"none for {', '.join(without[:8])}{' …' if len(without) > 8 else ''}",
            remedy="add a line for each; its values may be empty",
        )
    return [one for one in told if one is not None]


def _numbers(row: Mapping[str, object], columns: Mapping[str, str], where: str) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for item, column in columns.items():
        value = row.get(column)
        if value is None or value == "":
            continue
        numbers |= _dated(str(value), where) if item == DATE else {item: _number(value, column, where)}
    return numbers


def _dated(text: str, where: str) -> dict[str, float]:
    match = _DATE.fullmatch(text.strip())
    if match is None:
        raise DataError("this is no date", where=where, expected="such as 2018, 2018-06 or 2018-06-21", got=repr(text))
    return {part: float(value) for part, value in zip(_PARTS, match.groups(), strict=True) if value is not None}


def _number(value: object, column: str, where: str) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"'{column}' is no number", where=where, got=repr(value), remedy="leave it empty if unknown")
    return number
