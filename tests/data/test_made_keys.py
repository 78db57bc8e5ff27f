"""Transforms that add keys: masks to fill in, small images, boxes; and scenes in several folders."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.measure import label, regionprops
from torch import Tensor

from diffloom.data import Sample
from diffloom.errors import DataError
from diffloom.space import Space
from diffloom_data.aligned import Aligned
from diffloom_data.boxes import Boxes
from diffloom_data.degrade import LowRes, blurred, compressed
from diffloom_data.digits import Digits
from diffloom_data.geometry import Flip, Resize
from diffloom_data.holes import RandomMask
from diffloom_data.pixels import resize


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(size: int = 24, channels: int = 3, seed: int = 0) -> Sample:
    return {"image": torch.rand(channels, size, size, generator=stream(seed)) * 2 - 1}


# --- holes -----------------------------------------------------------------------------------------------------------


def mask_of(transform: RandomMask, seed: int, size: int = 40) -> Tensor:
    mask: Tensor = transform(picture(size), stream(seed))["mask"]
    assert mask.shape == (1, size, size)
    assert set(mask.flatten().tolist()) <= {0.0, 1.0}
    return mask[0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 9999))
def test_one_box_is_one_rectangle_with_sides_as_asked(seed: int) -> None:
    mask = mask_of(RandomMask(kind="boxes", count=1, smallest=0.2, largest=0.5), seed)
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    assert 8 <= len(rows) <= 20
    assert 8 <= len(columns) <= 20
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert int(mask.sum()) == len(rows) * len(columns)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 9999))
def test_a_stroke_is_as_wide_as_its_brush_and_in_one_piece(seed: int) -> None:
    mask = mask_of(RandomMask(kind="strokes", count=1, brush=0.15), seed)
    assert label(mask.numpy(), connectivity=2).max() == 1
    brush = 0.15 * 40
    longest = 4 * 0.5 * 40
    disc = math.pi * (brush / 2) ** 2
    assert 0.25 * disc - 2 < float(mask.sum()) < longest * (brush + 1) + disc


def test_samples_differ_and_equal_seeds_agree() -> None:
    transform = RandomMask()
    masks = [mask_of(transform, seed) for seed in range(20)]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 20
    assert torch.equal(masks[3], mask_of(transform, 3))
    assert 0.03 < float(torch.stack(masks).mean()) < 0.5


def test_a_mask_that_is_there_is_not_replaced() -> None:
    with pytest.raises(DataError, match="a 'mask' already"):
        RandomMask()(picture() | {"mask": torch.zeros(1, 24, 24)}, stream())
    with pytest.raises(ValueError, match="above the largest"):
        RandomMask(smallest=0.6)


# --- small images ----------------------------------------------------------------------------------------------------


def test_small_images_are_shrunk_by_a_bicubic_filter() -> None:
    sample = picture()
    made = LowRes(factor=4)(sample, stream())["low_res"]
    assert torch.equal(made, resize(sample["image"], (6, 6)))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_light_degradation_keeps_what_is_seen_and_differs_by_seed(channels: int) -> None:
    ramp = torch.linspace(-0.8, 0.8, 24).expand(channels, 24, 24).clone()
    one, other = (LowRes(factor=3, method="light")({"image": ramp}, stream(seed))["low_res"] for seed in (1, 2))
    assert one.shape == (channels, 8, 8)
    assert not torch.equal(one, other)
    for made in (one, other):
        assert float((made - resize(ramp, (8, 8))).abs().mean()) < 0.12
        assert float(made.abs().max()) <= 1


@given(st.floats(0.8, 2), st.floats(0, 3.14))
@settings(deadline=None, max_examples=20)
def test_a_blur_keeps_the_mean_and_has_the_widths_asked_for(width: float, angle: float) -> None:
    spike = torch.zeros(1, 41, 41)
    spike[0, 20, 20] = 1
    out = blurred(spike, (width, width), angle)[0]
    assert float(out.sum()) == pytest.approx(1, abs=1e-4)
    places = torch.arange(41) - 20.0
    assert float((out.sum(0) * places.square()).sum()) == pytest.approx(width**2, rel=0.1)
    torch.testing.assert_close(out, out.T, atol=1e-6, rtol=0)


def test_compression_is_jpeg_s() -> None:
    image = picture(16)["image"]
    pixels = image.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    assert float((compressed(image, 95) - image).abs().mean()) < float((compressed(image, 30) - image).abs().mean())
    grey = compressed(torch.full((2, 8, 8), 0.5), 90)
    assert len(set(grey.flatten().tolist())) == 1
    assert pixels.shape == (16, 16, 3)


def test_sides_that_do_not_divide_are_refused() -> None:
    with pytest.raises(DataError, match="multiples of 4"):
        LowRes(factor=4).space(Space(3, (10, 8)))


# --- boxes -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 9999))
def test_boxes_are_those_of_scikit_image_s_regions(seed: int) -> None:
    mask = torch.randint(0, 3, (1, 6, 8), generator=stream(seed)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    made = Boxes(objects=99, smallest=0.0)({"mask": mask}, stream(seed))
    expected = set()
    for number in range(3):
        for region in regionprops(label((mask[0] == number).numpy(), connectivity=2)):
            top, left, bottom, right = region.bbox
            expected.add((number, left / 16, top / 12, (right - left) / 16, (bottom - top) / 12))
    there = made["box_labels"] >= 0
    rows = zip(made["box_labels"][there].tolist(), made["boxes"][there].tolist(), strict=True)
    found = [(number, *box) for number, box in rows]
    assert len(found) == len(expected)
    for one, other in zip(sorted(found), sorted(expected), strict=True):
        assert one == pytest.approx(other)
    assert not made["boxes"][~there].any()


def test_the_largest_parts_come_in_and_small_or_unwanted_ones_do_not() -> None:
    mask = torch.zeros(10, 10, dtype=torch.int64)
    mask[:2, :2], mask[9, 9], mask[5:8, 5:8] = 1, 2, 3
    ordered = Boxes(objects=3, smallest=0.02, shuffle=False)({"mask": mask}, stream())
    assert ordered["box_labels"].tolist() == [0, 3, 1]
    assert ordered["boxes"][1].tolist() == pytest.approx([0.5, 0.5, 0.3, 0.3])
    few = Boxes(objects=2, smallest=0.0, without=(0,), shuffle=False)({"mask": mask}, stream())
    assert few["box_labels"].tolist() == [3, 1]
    orders = {tuple(Boxes(objects=4)({"mask": mask}, stream(seed))["box_labels"].tolist()) for seed in range(20)}
    assert len(orders) > 3


def test_boxes_refuse_geometry_behind_them() -> None:
    mask = torch.zeros(1, 24, 24, dtype=torch.int64)
    sample = Boxes(objects=2)(picture() | {"mask": mask}, stream())
    with pytest.raises(DataError, match="boxes do not follow"):
        Flip(horizontal=1.0)(sample, stream())


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_data_set_tells_what_its_transforms_add() -> None:
    data = Digits(size=8, transforms=(RandomMask(), LowRes(factor=2)))
    assert data.holds == ("image", "label", "mask", "low_res")
    assert set(data.holds) == set(data.get(0))
    assert list(data.column("label"))[:3] == [data.read(i)["label"] for i in range(3)]


# --- aligned folders -------------------------------------------------------------------------------------------------


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    for number in range(6):
        for part in ("pre", "post", "mask"):
            (tmp_path / part).mkdir(exist_ok=True)
            levels = np.full((12, 16), 40 * number + (3 if part == "post" else 0), dtype=np.uint8)
            levels = np.full((12, 16), number, dtype=np.uint8) if part == "mask" else levels
            Image.fromarray(levels).save(tmp_path / part / f"{number}.png")
    lines = [json.dumps({"name": str(n), "caption": f"scene {n}"}) for n in range(6)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    return tmp_path


PARTS = {"image": "post", "pre": "pre", "mask": "mask"}


def test_files_of_one_name_make_one_sample(scenes: Path) -> None:
    data = Aligned(path=str(scenes), folders=PARTS, channels={"pre": 1}, captions="captions.jsonl")
    assert data.keys == ("image", "pre", "mask", "caption")
    assert data.space == Space(3, (12, 16))
    sample = data.get(4)
    assert sample["image"].shape == (3, 12, 16)
    assert sample["pre"].shape == (1, 12, 16)
    assert sample["mask"].dtype == torch.int64
    assert set(sample["mask"].flatten().tolist()) == {4}
    assert float(sample["pre"].mean()) == pytest.approx(160 / 127.5 - 1)
    assert float(sample["image"].mean()) == pytest.approx(163 / 127.5 - 1)
    assert sample["caption"] == "scene 4"
    assert list(data.column("caption")) == [f"scene {n}" for n in range(6)]


def test_parts_are_cut_and_moved_alike(scenes: Path) -> None:
    data = Aligned(path=str(scenes), folders=PARTS, size=8, transforms=(Resize(size=4),))
    assert data.space == Space(3, (4, 4))
    sample = data.get(0)
    assert {key: tuple(sample[key].shape) for key in PARTS} == {
        "image": (3, 4, 4),
        "pre": (3, 4, 4),
        "mask": (1, 4, 4),
    }


def test_train_and_test_parts_are_disjoint_and_complete(scenes: Path) -> None:
    parts = [Aligned(path=str(scenes), folders=PARTS, split=part, test_fraction=0.5) for part in ("train", "test")]
    assert sorted(parts[0].names + parts[1].names) == [str(n) for n in range(6)]
    assert parts[0].names
    assert parts[1].names


def test_scenes_that_lack_a_part_are_refused(scenes: Path) -> None:
    (scenes / "pre" / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 scenes have no 'pre'.*none for 3"):
        Aligned(path=str(scenes), folders=PARTS)
    with pytest.raises(DataError, match="what is learned"):
        Aligned(path=str(scenes), folders={"pre": "pre"})


def test_parts_of_other_sizes_and_masks_in_colour_are_refused(scenes: Path) -> None:
    Image.new("L", (5, 5)).save(scenes / "pre" / "0.png")
    with pytest.raises(DataError, match=r"different sizes.*pre 5×5"):
        Aligned(path=str(scenes), folders=PARTS).get(0)
    Image.new("RGB", (16, 12)).save(scenes / "mask" / "1.png")
    with pytest.raises(DataError, match=r"class numbers.*got RGB"):
        Aligned(path=str(scenes), folders=PARTS).get(1)
