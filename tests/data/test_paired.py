"""Paired folders: who belongs together, how values are read, and that nothing comes out of place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import diffloom
from diffloom.errors import DataError, RecipeError
from diffloom_data.geometry import Crop, Flip
from diffloom_data.paired import PairedFolder

MODALITIES: dict[str, Any] = {"visible": {"folder": "vis", "channels": 3}, "infrared": {"folder": "ir"}}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Three scenes of 12×10: the infrared repeats the visible's red; one in 16 bits, endings mixed."""
    draws = np.random.default_rng(0)
    for part in ("vis", "ir"):
        (tmp_path / part).mkdir()
    for name in ("a", "b", "c"):
        colours = draws.integers(0, 256, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(colours).save(tmp_path / "vis" / f"{name}.png")
        red = colours[..., 0]
        deep = Image.fromarray(red.astype(np.uint16) * 257) if name == "b" else Image.fromarray(red)
        deep.save(tmp_path / "ir" / (f"{name}.tif" if name == "b" else f"{name}.png"))
    return tmp_path


def data(path: Path, **changes: Any) -> PairedFolder:
    return PairedFolder(**{"path": str(path), "modalities": MODALITIES, **changes})


def test_modalities_are_joined_in_their_order_whatever_their_depth(pairs: Path) -> None:
    found = data(pairs)
    assert (len(found), found.names, found.space.shape) == (3, ["a", "b", "c"], (4, 12, 10))
    assert found.modalities == {"visible": 3, "infrared": 1}
    for index in range(3):
        sample = found.get(index)
        assert set(sample) == set(found.holds)
        assert set(found.read(index)) == set(found.keys)
        assert torch.equal(sample["image"], torch.cat([sample["visible"], sample["infrared"]]))
        assert torch.allclose(sample["infrared"], sample["visible"][:1], atol=1e-6)
        assert sample["name"] == found.names[index]


def test_values_come_back_to_the_bit_depth_of_the_file(pairs: Path) -> None:
    stored = np.asarray(Image.open(pairs / "vis" / "a.png"))
    back = (data(pairs).get(0)["visible"].permute(1, 2, 0) + 1) * 127.5
    assert np.abs(back.numpy() - stored).max() < 0.5
    assert np.array_equal(back.round().numpy().astype(np.uint8), stored)


def test_windows_cover_every_pixel_and_come_again(pairs: Path) -> None:
    found = data(pairs, patch=6, stride=4, in_memory=True)
    assert len(found) == 3 * 3 * 2  # rows 0, 4, 6 and columns 0, 4
    assert found.space.shape == (4, 6, 6)
    whole = data(pairs).get(0)["image"]
    assert torch.equal(found.get(3)["image"], whole[:, 4:10, 4:])
    assert torch.equal(found.get(3, epoch=7)["image"], found.get(3)["image"])
    found.get(3)["image"].zero_()
    assert torch.equal(found.get(3)["image"], whole[:, 4:10, 4:])  # what is kept in memory is not handed out


def test_transforms_move_all_modalities_alike(pairs: Path) -> None:
    found = data(pairs, transforms=(Crop(size=6), Flip(vertical=0.5)))
    views = [found.get(0, epoch=epoch) for epoch in range(6)]
    assert all(torch.allclose(v["infrared"], v["visible"][:1], atol=1e-6) for v in views)
    assert len({float(v["image"].double().sum()) for v in views}) > 1


def test_arrays_of_any_bands_are_scaled_by_the_stated_limits(pairs: Path) -> None:
    (pairs / "sar").mkdir()
    values = np.linspace(-30, 10, 2 * 12 * 10).reshape(2, 12, 10)
    for name in ("a", "b", "c"):
        np.save(pairs / "sar" / f"{name}.npy", values)
    modalities = {**MODALITIES, "sar": {"folder": "sar", "channels": 2, "low": -25.0, "high": 0.0}}
    found = data(pairs, modalities=modalities).get(1)
    wanted = torch.tensor(np.clip((values + 25) / 12.5 - 1, -1, 1)).float()
    assert torch.allclose(found["sar"], wanted, atol=1e-6)
    assert found["image"].shape == (6, 12, 10)
    with pytest.raises(DataError, match=r"other channels than its modality.*expected 1, got 2"):
        data(pairs, modalities={"sar": {"folder": "sar"}}).get(0)


def test_missing_partners_are_all_named(pairs: Path) -> None:
    (pairs / "ir" / "a.png").unlink()
    (pairs / "vis" / "c.png").unlink()
    with pytest.raises(DataError) as caught:
        data(pairs)
    assert "2 of 3 scenes lack a modality" in str(caught.value)
    assert "a (no infrared), c (no visible)" in str(caught.value)
    left = data(pairs, missing="skip")
    assert (left.names, sorted(left.skipped)) == (["b"], ["a", "c"])


def test_partners_of_other_size_are_refused_or_resized(pairs: Path) -> None:
    Image.new("L", (5, 6), 100).save(pairs / "ir" / "a.png")
    with pytest.raises(DataError, match=r"a \(visible 12×10, infrared 6×5\)"):
        data(pairs)
    assert data(pairs, sizes="resize").get(0)["infrared"].shape == (1, 12, 10)


def test_what_cannot_be_is_refused(pairs: Path) -> None:
    with pytest.raises(DataError, match="no scene has such a name"):
        data(pairs, names="night*")
    with pytest.raises(DataError, match="smaller than the windows"):
        data(pairs, patch=11)
    with pytest.raises(DataError, match="no modality can be called 'image'"):
        data(pairs, modalities={"image": {"folder": "vis", "channels": 3}})
    with pytest.raises(DataError, match="does not exist"):
        data(pairs, modalities={"visible": {"folder": "nowhere"}})
    Image.new("L", (10, 12)).save(pairs / "ir" / "a.bmp")
    with pytest.raises(DataError, match="two files have the same name"):
        data(pairs)


def test_a_split_keeps_a_scene_s_windows_together(pairs: Path) -> None:
    parts = [data(pairs, patch=6, split=split, test_fraction=0.4, split_seed=2) for split in ("train", "test")]
    names = [{part.get(i)["name"] for i in range(len(part))} for part in parts]
    assert names[0] | names[1] == {"a", "b", "c"}
    assert not names[0] & names[1]


def test_a_recipe_tells_what_is_wrong_with_a_modality(pairs: Path) -> None:
    recipe = {
        "diffloom": 1,
        "name": "x",
        "data.type": "paired-folder",
        "data.path": str(pairs),
        "data.modalities": {"visible": {"folder": "vis", "chanels": 3}},
        "task.type": "fuse-average",
    }
    with pytest.raises(RecipeError, match=r"data\.modalities\.visible\.chanels: unknown key.*'channels'"):
        diffloom.load(overrides=recipe)
