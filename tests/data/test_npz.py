import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from diffloom.errors import DataError
from diffloom_data.geometry import Crop
from diffloom_data.npz import Npz, open_array

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 6, 8), np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, image=IMAGES, label=LABELS, last=IMAGES.transpose(0, 2, 3, 1), grey=IMAGES[:, 0])
    return path


def expected(index: int) -> torch.Tensor:
    return torch.from_numpy(IMAGES[index]).float() / 127.5 - 1


def test_every_layout_gives_the_same_images(archive: Path) -> None:
    first = Npz(path=str(archive))
    last = Npz(path=str(archive), image="last", layout="NHWC")
    grey = Npz(path=str(archive), image="grey", layout="NHW")
    assert first.space.shape == (3, 6, 8)
    assert grey.space.shape == (1, 6, 8)
    for index in (0, 11):
        assert torch.allclose(first.get(index)["image"], expected(index), atol=1e-6)
        assert torch.equal(last.get(index)["image"], first.get(index)["image"])
        assert torch.equal(grey.get(index)["image"], first.get(index)["image"][:1])


def test_labels_and_classes(archive: Path) -> None:
    data = Npz(path=str(archive), label="label", classes=("a", "b", "c"), transforms=(Crop(size=4),))
    assert [data.get(i)["label"] for i in range(4)] == [0, 1, 2, 0]
    assert data.classes == ("a", "b", "c")
    assert data.space.size == (4, 4)
    assert Npz(path=str(archive), label="label").classes == ("0", "1", "2")
    with pytest.raises(DataError, match="more labels than classes"):
        Npz(path=str(archive), label="label", classes=("a",))


def test_plain_archives_are_mapped_and_compressed_ones_read(archive: Path, tmp_path: Path) -> None:
    compressed = tmp_path / "small.npz"
    np.savez_compressed(compressed, image=IMAGES)
    for dtype in (np.float32, ">i2"):
        np.savez(tmp_path / "other.npz", x=np.asfortranarray(IMAGES.astype(dtype)))
        mapped = open_array(tmp_path / "other.npz", "x")
        assert isinstance(mapped, np.memmap)
        assert np.array_equal(mapped, IMAGES)
    assert isinstance(open_array(archive, "grey"), np.memmap)
    assert not isinstance(open_array(compressed, "image"), np.memmap)
    assert torch.equal(Npz(path=str(compressed)).get(4)["image"], Npz(path=str(archive)).get(4)["image"])


def test_byte_order_and_range_are_honoured(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=IMAGES.astype(">i2"))
    data = Npz(path=str(tmp_path / "a.npz"), low=0, high=255)
    assert torch.allclose(data.get(3)["image"], expected(3), atol=1e-6)


def test_what_is_pickled_is_the_path_not_the_pixels(archive: Path) -> None:
    data = Npz(path=str(archive), label="label")
    content = pickle.dumps(data)
    assert len(content) < 1500
    assert torch.equal(pickle.loads(content).get(7)["image"], data.get(7)["image"])


def test_the_range_must_be_stated_and_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=IMAGES.astype(np.float32))
    path = str(tmp_path / "a.npz")
    with pytest.raises(DataError, match="range is not known"):
        Npz(path=path)
    with pytest.raises(DataError, match="range is empty"):
        Npz(path=path, low=1, high=1)
    with pytest.raises(DataError, match="leaves the stated range"):
        Npz(path=path, low=0, high=100).get(0)
    np.savez(tmp_path / "a.npz", image=np.full((1, 1, 2, 2), np.nan, np.float32))
    with pytest.raises(DataError, match="leaves the stated range"):
        Npz(path=path, low=0, high=1).get(0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "nothing"}, "arrays image, label, last, grey"),
        ({"layout": "NHW"}, r"shape \(12, 3, 6, 8\)"),
        ({"label": "grey"}, "no labels of the images"),
    ],
)
def test_wrong_names_and_shapes_are_refused(archive: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Npz(path=str(archive), **options)  # type: ignore[arg-type]


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "objects.npz", image=np.array([{}, {}], dtype=object))
    for name in ("text", "objects"):
        with pytest.raises(DataError, match="cannot be read"):
            Npz(path=str(tmp_path / f"{name}.npz"))
    with pytest.raises(DataError, match="does not exist"):
        Npz(path=str(tmp_path / "missing.npz"))


def test_parts_divide_the_rows(archive: Path) -> None:
    train, test = (Npz(path=str(archive), split=s, test_fraction=0.4) for s in ("train", "test"))
    assert sorted(train.rows + test.rows) == list(range(12))
    assert test.rows
    told = Npz(path=str(archive), split="test", test_fraction=0.4, label="label")
    assert list(told.column("label")) == [row % 3 for row in test.rows]
