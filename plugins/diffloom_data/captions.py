"""Captions that lie beside images: a `.jsonl` or `.csv` table of names and texts, or a text file each."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from diffloom.errors import DataError

SIDECARS = "*.txt"
"""What a recipe says for one text file per image, of the same name but for the ending."""


def read_captions(root: Path, names: Sequence[str], source: str, keys: tuple[str, str]) -> list[str]:
    """Return the caption of each image.

    Args:
        root: The folder of the images.
        names: The images, relative to `root`.
        source: A `.jsonl` or `.csv` file relative to `root`, or `*.txt`.
        keys: The keys or columns under which a table holds names and captions; a name may lack its ending.

    Raises:
        DataError: The captions cannot be read, or an image has none.
    """
    if source == SIDECARS:
        found = {name: _text(file) for name in names if (file := (root / name).with_suffix(".txt")).is_file()}
    else:
        found = _table(root / source, keys)
    captions = [found.get(name, found.get(str(PurePosixPath(name).with_suffix("")))) for name in names]
    without = [name for name, caption in zip(names, captions, strict=True) if caption is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(names)} images have no caption",
            where=str(root / source),
            got=f"none for {', '.join(without[:8])}{' …' if len(without) > 8 else ''}",
            remedy="add them, or move these images elsewhere",
        )
    return [caption for caption in captions if caption is not None]


def _table(file: Path, keys: tuple[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line, row in rows(file):
        values = [row.get(key) for key in keys]
        if not all(isinstance(value, str) for value in values):
            raise DataError(
                f"line {line} does not name an image and its caption",
                where=str(file),
                expected=f"texts under {keys[0]!r} and {keys[1]!r}",
                got=f"the keys {', '.join(map(str, row)) or 'none'}",
                remedy="set `name_key` and `caption_key` to what the file uses",
            )
        name, caption = map(str, values)
        if found.setdefault(name, caption) != caption:
            raise DataError(
                f"line {line} gives {name} another caption",
                where=str(file),
                expected="one caption for each image",
                remedy="remove one of the lines",
            )
    return found


def rows(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield (line number, row) of a `.jsonl` or `.csv` file."""
    text = _text(file)
    if file.suffix.lower() == ".csv":
        reader = csv.DictReader(text.splitlines())
        for row in reader:
            yield reader.line_num, {str(key): value for key, value in row.items()}
        return
    if file.suffix.lower() != ".jsonl":
        raise DataError(
            "this is no table of captions", where=str(file), expected=f"a .jsonl or .csv file, or {SIDECARS}"
        )
    for line, content in enumerate(text.splitlines(), start=1):
        if content.strip():
            yield line, _object(file, line, content)


def _object(file: Path, line: int, content: str) -> Mapping[str, object]:
    try:
        row = json.loads(content)
    except ValueError as error:
        raise DataError(f"line {line} is no JSON", where=str(file), got=str(error)) from error
    if not isinstance(row, dict):
        raise DataError(f"line {line} is no JSON object", where=str(file), got=type(row).__name__)
    return row


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the captions cannot be read", where=str(file), got=str(error)) from error
