"""Union: the parts' samples, one part after the other, each as its part gives it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import diffloom
from diffloom.data import Dataset
from diffloom.errors import DataError
from diffloom_data.folder import Folder
from diffloom_data.geometry import Crop, Flip
from diffloom_data.union import Union


def folder(path: Path, *, sizes: tuple[int, int] = (8, 8), count: int = 4, **settings: object) -> Folder:
    for number in range(count):
        file = path / ("even", "odd")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([number, *path.name.encode()]).integers(0, 256, (*sizes, 3), np.uint8)
        Image.fromarray(pixels).save(file)
    return Folder(path=str(path), **settings)  # type: ignore[arg-type]


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Dataset]:
    return {"a": folder(tmp_path / "a", labels="folders"), "b": folder(tmp_path / "b", labels="folders", count=3)}


def test_samples_are_the_parts_one_after_the_other(parts: dict[str, Dataset]) -> None:
    data = Union(parts=parts)
    wanted = [part.get(index)["image"] for part in parts.values() for index in range(len(part))]
    assert len(data) == len(wanted) == 7
    for index, image in enumerate(wanted):
        assert torch.equal(data.get(index)["image"], image)
        assert torch.equal(data.read(index)["image"], image)
    for beyond in (7, -8):
        with pytest.raises(IndexError):
            data.read(beyond)


def test_classes_are_numbered_one_part_after_the_other(parts: dict[str, Dataset]) -> None:
    data = Union(parts=parts)
    assert data.classes == ("a/even", "a/odd", "b/even", "b/odd")
    assert [data.get(i)["label"] for i in range(7)] == [0, 0, 1, 1, 2, 2, 3]
    assert list(data.column("label")) == [0, 0, 1, 1, 2, 2, 3]
    shown = Union(parts=parts, repeats={"a": 0})
    assert shown.classes == data.classes
    assert [shown.get(i)["label"] for i in range(3)] == [2, 2, 3]
    twice = Union(parts=parts, repeats={"a": 0, "b": 2})
    assert list(twice.column("label")) == [twice.read(i)["label"] for i in range(6)] == [2, 2, 3] * 2


def test_only_keys_that_all_parts_have_are_kept(tmp_path: Path, parts: dict[str, Dataset]) -> None:
    data = Union(parts=parts | {"c": folder(tmp_path / "c")})
    assert data.keys == ("image",)
    assert data.classes == ()
    assert all(set(data.get(index)) == {"image"} for index in range(len(data)))


def test_a_repeated_sample_is_another_draw_each_time(tmp_path: Path) -> None:
    part = folder(tmp_path / "a", sizes=(40, 40), transforms=(Crop(size=8),))
    data = Union(parts={"a": part}, repeats={"a": 5})
    assert len(data) == 20
    shown = [data.get(index)["image"].numpy().tobytes() for index in range(20)]
    assert len(set(shown)) == 20
    assert shown == [data.get(index)["image"].numpy().tobytes() for index in range(20)]
    assert Counter(data.read(i)["image"].numpy().tobytes() for i in range(20)).most_common()[0][1] == 5


def test_what_a_part_gives_does_not_change_with_others(tmp_path: Path, parts: dict[str, Dataset]) -> None:
    cut: dict[str, Dataset] = {"c": folder(tmp_path / "c", sizes=(40, 40), transforms=(Crop(size=8),))}
    alone, after = Union(parts=cut), Union(parts=parts | cut)
    for index in range(4):
        assert torch.equal(alone.get(index, seed=3, epoch=2)["image"], after.get(7 + index, seed=3, epoch=2)["image"])


def test_its_own_transforms_come_last(tmp_path: Path) -> None:
    part = folder(tmp_path / "a", sizes=(16, 16), transforms=(Crop(size=8, position="centre"),))
    data = Union(parts={"a": part}, transforms=(Flip(horizontal=1.0), Crop(size=4, position="centre")))
    assert data.space.size == (4, 4)
    assert torch.equal(data.get(1)["image"], part.get(1)["image"].flip(-1)[:, 2:6, 2:6])


@pytest.mark.parametrize(
    ("repeats", "said"),
    [
        ({"c": 2}, r"no part 'c' to repeat.* names among a, b"),
        ({"a": 0, "b": 0}, r"no samples.* got a, b, all repeated 0 times"),
    ],
)
def test_repeats_that_make_no_sense_are_refused(parts: dict[str, Dataset], repeats: dict[str, int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Union(parts=parts, repeats=repeats)


def test_parts_of_different_spaces_are_refused_unless_left_out(tmp_path: Path, parts: dict[str, Dataset]) -> None:
    parts["big"] = folder(tmp_path / "big", sizes=(16, 12), labels="folders")
    with pytest.raises(DataError, match=r"a 3×8×8, b 3×8×8, big 3×16×12"):
        Union(parts=parts)
    assert Union(parts=parts, repeats={"a": 0, "b": 0}).space.size == (16, 12)
    with pytest.raises(DataError, match="got no parts"):
        Union(parts={})


def recipe(path: Path, held_out: str) -> Path:
    file = path / "union.yaml"
    file.write_text(
        f"""diffloom: 1
name: union
data:
  type: union
  parts:
    a: {{type: folder, path: {path / "a"}, labels: folders, split: train, test_fraction: 0.5}}
    b: {{type: folder, path: {path / "b"}, labels: folders}}
task: {{type: autoencode}}
autoencoder: {{type: kl, channels: 8, multipliers: [1, 2], blocks: 1}}
eval: {{held_out: {held_out}}}
"""
    )
    return file


@pytest.mark.parametrize(
    ("held_out", "check"),
    [
        (
            "{parts: {a: {split: test}}, repeats: {b: 0}}",
            lambda data: data["parts"]["a"]["split"] == "test" and data["repeats"] == {"b": 0},
        ),
        ("{parts: {b: null}}", lambda data: list(data["parts"]) == ["a"]),
        ("{type: digits}", lambda data: "parts" not in data),
    ],
)
def test_held_out_data_are_laid_over_the_data(tmp_path: Path, held_out: str, check: Callable[[Any], bool]) -> None:
    for name in "ab":
        folder(tmp_path / name, count=12)
    loaded = diffloom.load(str(recipe(tmp_path, held_out)))
    assert loaded.held_out is not None
    assert check(loaded.held_out.resolved())
    assert "split: test" not in str(loaded.resolved()["data"])
