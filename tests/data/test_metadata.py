"""Numbers in a table beside images reach the samples, under the names that a recipe gives them."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffloom.data import collate
from diffloom.errors import DataError
from diffloom_crs.metadata import Metadata
from diffloom_data.aligned import Aligned
from diffloom_data.metadata import read_metadata
from tests.ldm.conditioners.parts import denoiser

ROWS: list[dict[str, Any]] = [
    {"name": "a", "caption": "a field", "taken": "2018-06-21", "gsd_m": 0.5, "cloud": "10"},
    {"name": "b", "caption": "a road", "taken": "2018-06", "gsd_m": None, "cloud": ""},
    {"name": "c", "caption": "a house", "taken": "2019", "gsd_m": 2},
]
COLUMNS = {"date": "taken", "gsd": "gsd_m", "cloud_cover": "cloud"}


def folder(tmp_path: Path, rows: list[dict[str, Any]], table: str = "table.jsonl") -> Path:
    (tmp_path / "image").mkdir()
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / "image" / f"{name}.png")
    if table.endswith(".jsonl"):
        text = "\n".join(map(json.dumps, rows))
    else:
        keys = list(rows[0])
        text = "\n".join([",".join(keys), *(",".join(str(row.get(key) or "") for key in keys) for row in rows)])
    (tmp_path / table).write_text(text)
    return tmp_path


def aligned(tmp_path: Path, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> Aligned:
    table = changes.get("captions", "table.jsonl")
    given = {"captions": table, "metadata": COLUMNS, **changes}
    return Aligned(path=str(folder(tmp_path, rows, table)), folders={"image": "image"}, **given)


@pytest.mark.parametrize("table", ["table.jsonl", "table.csv"])
def test_numbers_and_dates_are_read_as_far_as_they_are_known(tmp_path: Path, table: str) -> None:
    data = aligned(tmp_path, captions=table)
    assert data.keys == ("image", "caption", "metadata")
    assert [data.get(index)["metadata"] for index in range(3)] == [
        {"year": 2018, "month": 6, "day": 21, "gsd": 0.5, "cloud_cover": 10},
        {"year": 2018, "month": 6},
        {"year": 2019, "gsd": 2},
    ]


def test_a_batch_of_them_is_what_the_conditioner_reads(tmp_path: Path) -> None:
    data = aligned(tmp_path)
    code = Metadata(denoiser=denoiser(vector=8)).encode(collate([data.get(index) for index in range(3)]))
    assert code["known"].sum(1).tolist() == [5, 2, 2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"taken": "June"}, "no date: expected such as 2018"),
        ({"gsd_m": "half"}, "'gsd_m' is no number"),
        ({"gsd_m": "nan"}, "'gsd_m' is no number"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"line 1: .*{message}"):
        aligned(tmp_path, [ROWS[0] | row, *ROWS[1:]])


def test_columns_and_lines_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'sun'"):
        aligned(tmp_path, metadata={"sun": "sun"})
    with pytest.raises(DataError, match="metadata come from a table"):
        Aligned(path=str(tmp_path), folders={"image": "image"}, metadata=COLUMNS)
    with pytest.raises(DataError, match="1 of 2 images have no metadata: got none for d"):
        read_metadata(tmp_path, ["a", "d"], "table.jsonl", "name", COLUMNS)
