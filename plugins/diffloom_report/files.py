"""Files of a run: replaced whole or not at all, and read as far as they are whole.

A process can be killed at any moment. So whatever is replaced is written beside its place first, and whatever is
appended to is a file of lines, of which the last one counts only once its newline is there.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
MESSAGES = "messages.log"
SAMPLES = "samples"
ABOUT = "about.json"


def replace(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all, making its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    beside.replace(path)


def append(path: Path, line: str) -> None:
    """Add a line to a file; it is the operating system's when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record to a file of JSON lines."""
    append(path, json.dumps(record, allow_nan=False))


def lines(path: Path) -> list[str]:
    """Return the complete lines of a file; none where there is no file."""
    if not path.is_file():
        return []
    return path.read_bytes().decode(errors="replace").split("\n")[:-1]


def records(path: Path) -> list[dict[str, Any]]:
    """Return the complete records of a file of JSON lines; what is no JSON object is passed over."""
    return [record for line in lines(path) if (record := record_of(line)) is not None]


def record_of(line: str) -> dict[str, Any] | None:
    """Return the JSON object that a line holds, or `None` where it holds none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file; empty where there is none that can be read."""
    if not path.is_file():
        return {}
    return record_of(path.read_bytes().decode(errors="replace")) or {}
