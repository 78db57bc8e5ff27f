import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffloom_report import grid, trajectory
from diffloom_report.pictures import BACKGROUND, GAP, enlargement, near_square

from .stand_in import hooks, stand_in


def levels(*shape: int) -> Tensor:
    """Images whose values are exactly those of some byte."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)) / 127.5 - 1


def as_bytes(images: Tensor) -> np.ndarray:
    return ((images + 1) * 127.5).round().byte().numpy()


def tile(sheet: Image.Image, index: int, columns: int, size: tuple[int, int]) -> np.ndarray:
    """Cut one tile of (height, width) out of a sheet whose head is what is left over."""
    row, column = divmod(index, columns)
    pixels = np.asarray(sheet)
    head = (sheet.height - GAP) % (size[0] + GAP)
    top, left = head + GAP + row * (size[0] + GAP), GAP + column * (size[1] + GAP)
    return pixels[top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("size", [(8, 8), (11, 7), (16, 16), (32, 32), (64, 64), (70, 100)])
def test_every_pixel_of_every_image_is_there_as_a_square_of_its_colour(channels: int, size: tuple[int, int]) -> None:
    images = levels(7, channels, *size)
    sheet = grid(images, 3)
    width = size[1] * (2 if channels == 2 else 1)
    factor = enlargement(size[0], width, 3)
    high, wide = size[0] * factor, width * factor
    assert sheet.mode == "RGB"
    assert sheet.size == (GAP + 3 * (wide + GAP), GAP + 3 * (high + GAP))
    for index, pixels in enumerate(as_bytes(images)):
        if channels == 1:
            expected = np.stack([pixels[0]] * 3, -1)
        elif channels == 2:
            expected = np.stack([np.hstack([pixels[0], pixels[1]])] * 3, -1)
        else:
            expected = np.stack([pixels[0], pixels[1], pixels[2]], -1)
        found = tile(sheet, index, 3, (high, wide))
        assert np.array_equal(found, np.kron(expected, np.ones((factor, factor, 1), dtype=np.uint8)))
    assert (tile(sheet, 8, 3, (high, wide)) == BACKGROUND).all()


def test_bands_choose_what_is_red_green_and_blue_where_they_fit() -> None:
    images = levels(1, 4, 64, 64)
    shown = tile(grid(images, bands=(3, 1, 0)), 0, 1, (64, 64))
    assert np.array_equal(shown, as_bytes(images)[0][[3, 1, 0]].transpose(1, 2, 0))
    too_far = tile(grid(images, bands=(4, 1, 0)), 0, 1, (64, 64))
    assert np.array_equal(too_far, as_bytes(images)[0][[0, 1, 2]].transpose(1, 2, 0))


def test_values_beyond_the_range_are_clipped_and_lost_ones_stand_out() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[..., 0, :4] = torch.tensor([-9.0, 9.0, float("nan"), float("inf")])
    shown = tile(grid(image), 0, 1, (64, 64))
    assert shown[0, :5].tolist() == [[0] * 3, [255] * 3, [255, 0, 255], [255, 0, 255], [128] * 3]


@pytest.mark.parametrize("side", [8, 16, 28, 32])
@pytest.mark.parametrize("columns", [1, 4, 10, 32])
def test_small_images_are_enlarged_until_they_can_be_read(side: int, columns: int) -> None:
    assert 50 <= side * enlargement(side, side, columns) <= 128


def test_a_sheet_without_columns_is_about_square() -> None:
    assert [near_square(n) for n in (1, 2, 4, 9, 10, 12, 16, 100)] == [1, 2, 2, 3, 5, 4, 4, 10]


def test_labels_stand_above_their_columns_and_move_nothing_else() -> None:
    images = levels(6, 1, 16, 16)
    plain, labelled = grid(images, 3), grid(images, 3, ["zero", "one", "a name far too long for its column"])
    head = labelled.height - plain.height
    assert head > 0
    assert labelled.width == plain.width
    assert np.array_equal(np.asarray(labelled)[head:], np.asarray(plain))
    top = np.asarray(labelled)[:head].astype(int)
    inked = (np.abs(top - BACKGROUND).sum(-1) > 60).any(0)
    width = 16 * enlargement(16, 16, 3)
    for column in range(3):
        left = GAP + column * (width + GAP)
        assert inked[left : left + width].any()
    assert not inked[:GAP].any()
    assert not inked[-GAP:].any()


def test_half_precision_and_arrays_are_taken() -> None:
    images = torch.tensor([[[[-1.0, 1.0]]]])
    assert grid(images.bfloat16()).tobytes() == grid(images.numpy()).tobytes() == grid(images).tobytes()


@pytest.mark.parametrize("shape", [(3, 8, 8), (0, 1, 8, 8)])
def test_what_is_no_set_of_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="N, C, H, W"):
        grid(torch.zeros(shape))


def test_a_trajectory_has_a_row_per_item_and_a_column_per_state() -> None:
    frames = levels(5, 2, 3, 64, 64)
    sheet = trajectory(frames)
    for item in range(2):
        for state in range(5):
            shown = tile(sheet, item * 5 + state, 5, (64, 64))
            assert np.array_equal(shown, as_bytes(frames)[state, item].transpose(1, 2, 0))


def sampled(directory: Path, outputs: dict[str, object], **changes: object) -> dict[str, object]:
    hooks("samples").call("diffloom_sampled", run=stand_in(directory, **changes), step=30, outputs=outputs)
    record: dict[str, object] = json.loads((directory / "samples/step-00000030.json").read_text())
    return record


def test_the_sheet_the_way_to_it_and_what_was_asked_are_written(tmp_path: Path) -> None:
    images, frames = levels(20, 1, 8, 8), levels(9, 4, 1, 8, 8)
    outputs = {"image": images, "trajectory": frames, "seeds": range(20), "batch": {"label": torch.arange(20) % 10}}
    record = sampled(tmp_path, outputs, classes=tuple("0123456789"))
    assert record["seeds"] == list(range(20))
    assert record["asked"] == {"label": [i % 10 for i in range(20)]}
    assert record["classes"] == list("0123456789")
    assert record["pictures"] == {
        "image": "step-00000030.png",
        "trajectory": "step-00000030-trajectory.png",
    }
    sheet = Image.open(tmp_path / "samples/step-00000030.png")
    assert sheet.tobytes() == grid(images, 10, list("0123456789")).tobytes()
    way = Image.open(tmp_path / "samples/step-00000030-trajectory.png")
    assert way.tobytes() == trajectory(frames).tobytes()
    assert sorted(p.suffix for p in (tmp_path / "samples").iterdir()) == [".json", ".png", ".png"]


@pytest.mark.parametrize(
    ("labels", "classes", "named", "columns", "headed"),
    [
        ([0, 1, 2, 0, 1, 2], 3, None, 3, True),
        ([2, 0, 1, 2, 0, 1], 3, None, 3, True),
        ([0, 0, 1, 1, 2, 2], 3, None, 3, False),
        ([0, 1, 2, 0, 1, 2], 3, 2, 2, False),
        ([0, 1, 2, 3, 4, 5], 40, None, 3, False),
        ([1, 1, 1, 1, 1, 1], 40, 6, 6, True),
    ],
)
def test_columns_are_classes_and_headed_where_every_column_is_of_one(
    tmp_path: Path, labels: list[int], classes: int, named: int | None, columns: int, headed: bool
) -> None:
    images, names = levels(6, 1, 64, 64), tuple(f"c{i}" for i in range(classes))
    outputs = {"image": images, "seeds": range(6), "batch": {"label": torch.tensor(labels)}}
    sampled(tmp_path, outputs, classes=names, columns=named)
    heads = [names[label] for label in labels[:columns]] if headed else None
    sheet = Image.open(tmp_path / "samples/step-00000030.png")
    assert sheet.tobytes() == grid(images, columns, heads).tobytes()


def test_a_data_set_says_which_bands_are_seen(tmp_path: Path) -> None:
    images = levels(4, 6, 16, 16)
    sampled(tmp_path, {"image": images, "seeds": range(4), "batch": {}}, rgb_bands=(3, 2, 1))
    sheet = Image.open(tmp_path / "samples/step-00000030.png")
    assert sheet.tobytes() == grid(images[:, [3, 2, 1]], 2).tobytes()


def test_answers_under_other_keys_and_what_was_given_are_drawn_too(tmp_path: Path) -> None:
    low, answer = levels(3, 3, 16, 16), levels(3, 3, 64, 64)
    outputs = {"image": answer, "change": levels(3, 1, 64, 64), "seeds": range(3), "batch": {"low_res": low}}
    record = sampled(tmp_path, outputs)
    assert list(record["pictures"]) == ["image", "change", "given"]  # type: ignore[call-overload]
    assert record["asked"] == {"low_res": {"shape": [3, 3, 16, 16]}}
    given = Image.open(tmp_path / "samples/step-00000030-given.png")
    for row in range(3):
        small = as_bytes(low)[row].transpose(1, 2, 0)
        grown = np.kron(small, np.ones((4, 4, 1), dtype=np.uint8))
        assert np.array_equal(tile(given, row * 4, 4, (64, 64)), grown)
        smooth = torch.nn.functional.interpolate(low[row : row + 1], scale_factor=4, mode="bicubic").clamp(-1, 1)
        assert np.array_equal(tile(given, row * 4 + 1, 4, (64, 64)), as_bytes(smooth)[0].transpose(1, 2, 0))
        assert np.array_equal(tile(given, row * 4 + 2, 4, (64, 64)), as_bytes(answer)[row].transpose(1, 2, 0))


def test_hints_and_masks_are_shown_from_black_to_white(tmp_path: Path) -> None:
    answer = levels(2, 3, 64, 64)
    hint = (levels(2, 1, 64, 64) > 0).float()
    sampled(tmp_path, {"image": answer, "seeds": range(2), "batch": {"hint": hint}})
    given = Image.open(tmp_path / "samples/step-00000030-given.png")
    for row in range(2):
        shown = tile(given, row * 2, 2, (64, 64))
        assert np.array_equal(shown, np.repeat(hint[row].numpy().transpose(1, 2, 0) * 255, 3, 2))


def test_the_true_image_stands_beside_its_answer(tmp_path: Path) -> None:
    true, answer = levels(3, 3, 64, 64), levels(3, 3, 64, 64).flip(0)
    sampled(tmp_path, {"image": answer, "seeds": range(3), "batch": {"image": true}})
    given = Image.open(tmp_path / "samples/step-00000030-given.png")
    for row in range(3):
        assert np.array_equal(tile(given, row * 2, 2, (64, 64)), as_bytes(answer)[row].transpose(1, 2, 0))
        assert np.array_equal(tile(given, row * 2 + 1, 2, (64, 64)), as_bytes(true)[row].transpose(1, 2, 0))
