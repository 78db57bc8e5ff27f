import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffloom.errors import DataError
from diffloom_data.images import image_size, read_image

GREY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def saved(path: Path, array: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def expected(array: np.ndarray, scale: float = 255) -> torch.Tensor:
    values = torch.from_numpy(np.ascontiguousarray(array)).double() / scale * 2 - 1
    return (values.unsqueeze(0) if values.dim() == 2 else values.permute(2, 0, 1)).float()


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-6)


def test_grey_is_repeated_for_three_channels(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", GREY)
    assert same(read_image(path, 1), expected(GREY))
    assert same(read_image(path, 3), expected(GREY).expand(3, 2, 3))


def test_colour_becomes_luma_for_one_channel(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", COLOUR)
    assert same(read_image(path, 3), expected(COLOUR))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert same(read_image(path, 1), expected(luma))


def test_sixteen_bits_keep_their_precision(tmp_path: Path) -> None:
    values = np.array([[0, 1, 257], [32768, 65534, 65535]], np.uint16)
    assert same(read_image(saved(tmp_path / "a.png", values), 1), expected(values, 65535))
    assert same(read_image(saved(tmp_path / "a.tif", values), 1), expected(values, 65535))


def test_floating_point_within_zero_and_one_is_taken_as_it_is_and_else_refused(tmp_path: Path) -> None:
    values = np.array([[0, 0.25], [0.5, 1]], np.float32)
    assert same(read_image(saved(tmp_path / "a.tif", values), 1), expected(values, 1))
    for bad in (values + 1, values - 1, values * np.nan):
        with pytest.raises(DataError, match="must lie in 0 … 1"):
            read_image(saved(tmp_path / "b.tif", bad), 1)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png")
    red, green, blue = [255, 0, 0], [0, 255, 0], [0, 0, 255]
    assert same(read_image(tmp_path / "a.png", 3), expected(np.array([[red, green], [blue, green]])))


def test_opacity_is_kept_for_four_channels_and_laid_over_black_for_fewer(tmp_path: Path) -> None:
    pixel = np.array([[[200, 100, 50, 102]]], np.uint8)
    path = saved(tmp_path / "a.png", pixel)
    assert same(read_image(path, 4), expected(pixel))
    assert same(read_image(path, 3), expected(pixel[..., :3] * 0.4))
    opaque = read_image(saved(tmp_path / "b.png", COLOUR), 4)
    assert same(opaque[:3], expected(COLOUR))
    assert (opaque[3] == 1).all()


def test_a_transparent_colour_of_a_grey_image_counts(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", GREY, transparency=255)
    assert read_image(path, 4)[3, 1, 2] == -1
    assert read_image(path, 1)[0, 1, 2] == -1


@pytest.mark.parametrize("mode", ["1", "LA", "CMYK", "YCbCr", "I", "P"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_is_read_with_every_number_of_channels(tmp_path: Path, mode: str, channels: int) -> None:
    suffix = {"CMYK": "tif", "YCbCr": "tif", "I": "tif"}.get(mode, "png")
    image = read_image(saved(tmp_path / f"a.{suffix}", GREY, mode), channels)
    assert image.shape == (channels, 2, 3)
    assert image.dtype == torch.float32
    assert image.abs().max() <= 1


def test_the_orientation_that_a_camera_noted_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    path = saved(tmp_path / "a.png", GREY, exif=exif)
    assert same(read_image(path, 1), expected(np.rot90(GREY, -1)))
    assert image_size(path) == (3, 2)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "bmp", "webp"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_is_wrong_with_a_file_is_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"a.{suffix}"
    saved(path, np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8))
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for read in (lambda: read_image(path, 3), lambda: image_size(path)):
        with contextlib.suppress(DataError):
            read()


def test_an_error_names_the_file_and_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_text("this is no image")
    with pytest.raises(DataError, match="cannot identify") as caught:
        read_image(path, 3)
    assert caught.value.where == str(path)
    assert caught.value.__cause__ is not None
