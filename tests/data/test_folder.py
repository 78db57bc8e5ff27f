import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from diffloom.data import Sample, collate
from diffloom.errors import DataError
from diffloom_data.folder import Folder
from diffloom_data.geometry import Crop, Flip, Resize, Rotate

DATA = os.environ.get("DIFFLOOM_DATA")
real = pytest.mark.skipif(DATA is None, reason="the environment variable DIFFLOOM_DATA is not set")


def image(path: Path, seed: int = 0, size: tuple[int, int] = (20, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def truncated_png(path: Path) -> None:
    content = image(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def truncated_jpeg(path: Path) -> None:
    truncated_png(path.with_suffix(".jpg"))


def renamed_text(path: Path) -> None:
    path.write_text("this is no image")


def no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def broken_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere.png")


BAD = [truncated_png, truncated_jpeg, renamed_text, no_bytes, broken_link]


@pytest.mark.parametrize("spoil", BAD)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    image(tmp_path / "a.png")
    spoil(tmp_path / "bad.png")
    with pytest.raises(DataError, match="1 of 2 files cannot be read") as caught:
        Folder(path=str(tmp_path))
    assert "bad." in str(caught.value)
    assert "bad: skip" in str(caught.value)


def test_all_bad_files_are_refused_at_once(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    for number, spoil in enumerate(BAD):
        spoil(tmp_path / f"bad{number}.png")
    with pytest.raises(DataError, match="5 of 6 files") as caught:
        Folder(path=str(tmp_path))
    assert all(f"bad{number}." in str(caught.value) for number in range(5))


def test_many_bad_files_are_counted_beyond_the_first_twenty(tmp_path: Path) -> None:
    for number in range(23):
        no_bytes(tmp_path / f"{number:02}.png")
    with pytest.raises(DataError, match="23 of 23 files") as caught:
        Folder(path=str(tmp_path), bad="skip")
    assert "19.png" in str(caught.value)
    assert "and 3 more" in str(caught.value)


def test_skipped_files_are_logged_and_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "a.png")
    image(tmp_path / "c.png")
    for number, spoil in enumerate(BAD):
        spoil(tmp_path / f"bad{number}.png")
    with caplog.at_level(logging.WARNING, logger="diffloom_data.folder"):
        folder = Folder(path=str(tmp_path), bad="skip")
    assert folder.names == ["a.png", "c.png"]
    assert len(folder.skipped) == 5
    assert all(name in caplog.text for name in folder.skipped)
    assert "no bytes" in folder.skipped["bad3.png"]


def test_a_file_that_turns_bad_later_is_named_or_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        image(tmp_path / f"{number}.png", seed=number)
    strict, lenient = Folder(path=str(tmp_path)), Folder(path=str(tmp_path), bad="skip")
    no_bytes(tmp_path / "2.png")
    (tmp_path / "3.png").unlink()
    with pytest.raises(DataError, match=r"2\.png"):
        strict.get(2)
    for _ in range(2):
        assert torch.equal(lenient.get(2)["image"], strict.get(0)["image"])
    assert set(lenient.skipped) == {"2.png", "3.png"}
    assert caplog.text.count("2.png") == 1
    for number in range(2):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(DataError, match="no file can be read"):
        lenient.get(0)


def test_headers_alone_find_what_has_no_header(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    truncated_png(tmp_path / "b.png")
    folder = Folder(path=str(tmp_path), inspect="header")
    with pytest.raises(DataError, match=r"b\.png"):
        folder.get(1)
    renamed_text(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"c\.png"):
        Folder(path=str(tmp_path), inspect="header")
    assert len(Folder(path=str(tmp_path), inspect="never", size=8)) == 3


def test_the_order_is_that_of_sorted_names_whatever_the_disk_says(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/9.PNG", "c.png", "a/10.png", ".hidden.png", ".git/x.png", "notes.txt"):
        target = tmp_path / name
        renamed_text(target) if name.endswith("txt") else image(target)
    assert Folder(path=str(tmp_path)).names == ["a/10.png", "a/9.PNG", "b/2.png", "c.png"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    image(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    image(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    assert Folder(path=str(tmp_path / "data")).names == ["a.png", "more/b.png"]


def test_folders_become_classes(tmp_path: Path) -> None:
    for name in ("sea/1.png", "land/2.png", "land/deep/3.png"):
        image(tmp_path / name)
    folder = Folder(path=str(tmp_path), labels="folders")
    assert folder.classes == ("land", "sea")
    assert folder.keys == ("image", "label")
    assert [folder.get(i)["label"] for i in range(3)] == [0, 0, 1]
    image(tmp_path / "loose.png")
    with pytest.raises(DataError, match=r"loose\.png"):
        Folder(path=str(tmp_path), labels="folders")


def test_parts_divide_the_files_and_stay_when_files_are_added(tmp_path: Path) -> None:
    for number in range(60):
        image(tmp_path / f"{number}.png", size=(4, 4))

    def names(split: str, seed: int = 0) -> set[str]:
        return set(Folder(path=str(tmp_path), split=split, test_fraction=0.3, split_seed=seed).names)  # type: ignore[arg-type]

    train, test = names("train"), names("test")
    assert train | test == names("all")
    assert not train & test
    assert 8 <= len(test) <= 28
    assert names("test", seed=1) != test
    for number in range(60, 90):
        image(tmp_path / f"{number}.png", size=(4, 4))
    assert train <= names("train")
    assert test <= names("test")


def test_an_empty_part_is_refused(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    with pytest.raises(DataError, match="part is empty"):
        Folder(path=str(tmp_path), split="test", test_fraction=1e-9)


def test_sizes_are_made_equal_or_refused(tmp_path: Path) -> None:
    image(tmp_path / "a.png", size=(20, 24))
    image(tmp_path / "b.png", size=(40, 16))
    with pytest.raises(DataError, match="different sizes"):
        Folder(path=str(tmp_path))
    with pytest.raises(DataError, match="different sizes"):
        Folder(path=str(tmp_path), transforms=(Resize(size=8, fit="shorter"),))
    with pytest.raises(DataError, match="smaller than the window"):
        Folder(path=str(tmp_path), transforms=(Crop(size=18),))
    for folder in (
        Folder(path=str(tmp_path), size=12),
        Folder(path=str(tmp_path), transforms=(Crop(size=12),)),
        Folder(path=str(tmp_path), transforms=(Resize(size=12),)),
    ):
        assert folder.space.size == (12, 12)
        assert [folder.get(i)["image"].shape for i in range(2)] == [(3, 12, 12)] * 2


def test_the_size_rule_keeps_the_centre_and_the_proportions(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (Folder(path=str(tmp_path), channels=1, size=10).get(0)["image"] == 1).all()


@pytest.mark.parametrize(
    ("path", "said"),
    [("$DIFFLOOM_NOWHERE/x", "DIFFLOOM_NOWHERE is not set"), ("/no/such/folder", "does not exist")],
)
def test_a_path_that_leads_nowhere_says_so(monkeypatch: pytest.MonkeyPatch, path: str, said: str) -> None:
    monkeypatch.delenv("DIFFLOOM_NOWHERE", raising=False)
    with pytest.raises(DataError, match=said) as caught:
        Folder(path=path)
    assert caught.value.where
    assert caught.value.remedy


def test_variables_are_replaced_and_empty_folders_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFLOOM_SOMEWHERE", str(tmp_path))
    with pytest.raises(DataError, match="holds no images"):
        Folder(path="${DIFFLOOM_SOMEWHERE}")
    image(tmp_path / "x" / "a.png")
    assert len(Folder(path="$DIFFLOOM_SOMEWHERE/x")) == 1
    with pytest.raises(DataError, match="is no folder"):
        Folder(path="$DIFFLOOM_SOMEWHERE/x/a.png")


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("c.jsonl", '{"name": "a.png", "caption": "one, two"}\n\n{"name": "b", "caption": "zwei ü"}\n'),
        ("c.csv", 'name,caption\na.png,"one, two"\nb,zwei ü\n'),
        ("../c.csv", '\ufeffname,caption\na,"one, two"\nb.png,zwei ü\n'),
    ],
)
def test_captions_from_a_table(tmp_path: Path, source: str, content: str) -> None:
    root = tmp_path / "images"
    image(root / "a.png")
    image(root / "b.png")
    (root / source).write_text(content, encoding="utf-8")
    folder = Folder(path=str(root), captions=source)
    assert folder.keys == ("image", "caption")
    assert [folder.get(i)["caption"] for i in range(2)] == ["one, two", "zwei ü"]


def test_captions_from_files_beside_the_images(tmp_path: Path) -> None:
    for name in ("a.png", "deep/b.png"):
        image(tmp_path / name).with_suffix(".txt").write_text(f"caption of {name}\n")
    folder = Folder(path=str(tmp_path), captions="*.txt")
    assert [folder.get(i)["caption"] for i in range(2)] == ["caption of a.png", "caption of deep/b.png"]
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"none for a\.png"):
        Folder(path=str(tmp_path), captions="*.txt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "line 1 is no JSON"),
        ("[1]", "line 1 is no JSON object"),
        ('{"file": "a.png", "text": "x"}', "name_key"),
        ('{"name": "a", "caption": "x"}\n{"name": "a", "caption": "y"}', "another caption"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(tmp_path: Path, content: str, said: str) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(DataError, match=said):
        Folder(path=str(tmp_path), captions="c.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        Folder(path=str(tmp_path), captions="missing.jsonl")


class Ordered(TorchDataset[Sample]):
    """The samples of a data set in one epoch, as a loader wants them."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> Sample:
        return self.folder.get(index, seed=3, epoch=1)


@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_give_the_same_samples_as_no_workers(tmp_path: Path, start: str, workers: int) -> None:
    for number in range(9):
        image(tmp_path / f"{number}.png", seed=number)
    folder = Folder(path=str(tmp_path), transforms=(Crop(size=12), Flip(), Rotate(degrees=10)))
    plain = collate([folder.get(i, seed=3, epoch=1) for i in range(9)])["image"]
    loader = DataLoader(
        Ordered(folder), batch_size=2, num_workers=workers, collate_fn=collate, multiprocessing_context=start
    )
    assert torch.equal(torch.cat([batch["image"] for batch in loader]), plain)
    other = collate([folder.get(i, seed=3, epoch=2) for i in range(9)])["image"]
    assert not torch.equal(other, plain)


@real
def test_real_scenes() -> None:
    folder = Folder(path="$DIFFLOOM_DATA/scenes", size=64, labels="folders", split="test")
    assert len(folder.classes) == 12
    assert 80 <= len(folder) <= 160
    assert list(folder.column("label")) == [folder.read(i)["label"] for i in range(len(folder))]
    assert folder.get(0)["image"].std() > 0.05


@real
def test_real_captions() -> None:
    folder = Folder(path="$DIFFLOOM_DATA/disaster/post", captions="../captions.jsonl", size=64)
    assert len(folder) == 22
    assert "satellite" in folder.get(0)["caption"]
