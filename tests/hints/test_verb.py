"""The verb `hints`, on pictures and GeoTIFFs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffloom.cli import main
from diffloom_hints.showing import DRAWN, SHEET

SIDE = 40


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
    pixels[10:30, 8:28] = (200, 180, 160)
    Image.fromarray(pixels).save(tmp_path / "roof.png")
    return tmp_path / "roof.png"


def run(*words: object) -> int:
    return main([str(word) for word in words])


def read(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(path))


def names(folder: Path) -> Sequence[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_folder_gets_a_picture_per_hint_and_a_contact_sheet(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("hints", picture) == 0
    assert names(tmp_path / "roof-hints") == sorted([SHEET, *(f"{name}.png" for name in DRAWN)])
    assert capsys.readouterr().out.split()[-1] == str(Path("roof-hints") / SHEET)
    assert read(tmp_path / "roof-hints" / "canny.png").shape == (SIDE, SIDE)
    assert set(np.unique(read(tmp_path / "roof-hints" / "canny.png"))) == {0, 255}
    assert read(tmp_path / "roof-hints" / "blurred.png").shape == (SIDE, SIDE, 3)
    side = read(tmp_path / "roof-hints" / SHEET).shape
    assert min(side[:2]) > 2 * 240


def test_only_some_with_parameters_on_a_sheet_alone(picture: Path, tmp_path: Path) -> None:
    assert run("hints", picture, "--only", "lines, sobel", "--set", "sobel.gain=0.01", "-o", tmp_path / "s.png") == 0
    assert names(tmp_path) == ["roof.png", "s.png"]


def test_masks_roads_and_depths_are_shown_too(picture: Path, tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, 20:] = 2
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask * 60 + 10).save(tmp_path / "depth.png")
    out = tmp_path / "out"
    made = run(
        "hints", picture, "-o", out, "--mask", tmp_path / "mask.png", "--roads", "2", "--depth", tmp_path / "depth.png"
    )
    assert made == 0
    assert set(names(out)) == {SHEET, *(f"{n}.png" for n in (*DRAWN, "segmentation-map", "road-map", "depth-map"))}
    for name in ("road-map", "depth-map"):
        assert np.array_equal(read(out / f"{name}.png"), np.where(mask == 2, 255, 0))
    assert [tuple(colour) for colour in read(out / "segmentation-map.png")[0, [0, 39]]] == [(128, 0, 0), (128, 128, 0)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "cany"), "did you mean 'canny'"),
        (("--only", "flip"), "makes no hint"),
        (("--set", "canny.low"), "NAME.KEY=VALUE"),
        (("--set", "canny.lov=1"), "low"),
        (("--bands", "5"), "bands from 0 to 2"),
        (("--bands", "red"), "no numbers"),
        (("--only", "depth-map"), "no 'depth'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    picture: Path, tmp_path: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("hints", picture, "-o", tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err
    assert names(tmp_path) == ["roof.png"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_hints_of_a_geotiff_keep_its_reference(dtype: str, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from affine import Affine

    values = np.full((6, SIDE, SIDE), 40, dtype)
    values[:, 10:30, 8:28] = 200
    values[:, 0, :5] = 0
    profile = {"driver": "GTiff", "dtype": dtype, "count": 6, "height": SIDE, "width": SIDE, "nodata": 0}
    where = {"crs": "EPSG:32632", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
    with rasterio.open(tmp_path / "in.tif", "w", **profile, **where) as file:
        file.write(values)
    assert run("hints", tmp_path / "in.tif", "-o", tmp_path / "out") == 0
    assert names(tmp_path / "out") == sorted([SHEET, *(f"{name}.tif" for name in DRAWN)])
    for name, bands in (("canny", 1), ("blurred", 6)):
        with rasterio.open(tmp_path / "out" / f"{name}.tif") as file:
            assert (file.count, file.dtypes[0], file.shape) == (bands, "uint8", (SIDE, SIDE))
            assert (file.crs.to_epsg(), file.transform, file.nodata) == (32632, where["transform"], None)
            if name == "canny":
                assert file.read(1)[20, 7:9].max() == 255
                assert file.read(1)[15:25, 12:24].max() == 0


def test_a_band_of_opacity_is_no_band_of_brightness(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from affine import Affine

    values = np.full((4, SIDE, SIDE), 120, np.uint8)
    values[3] = 255
    values[:3, :, :10] = 77  # hidden
    values[3, :, :20] = 0
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 4,
        "height": SIDE,
        "width": SIDE,
        "photometric": "RGB",
        "alpha": "YES",
    }
    with rasterio.open(tmp_path / "in.tif", "w", transform=Affine(1, 0, 0, 0, -1, 9), **profile) as file:
        file.write(values)
        assert file.colorinterp[3].name == "alpha"
    only = ("--only", "blurred", "--set", "blurred.sigma=0.4")
    assert run("hints", tmp_path / "in.tif", "-o", tmp_path / "out", *only) == 0
    with rasterio.open(tmp_path / "out" / "blurred.tif") as file:
        assert file.count == 3
        assert file.read(1)[20, 2] == 0
        assert file.read(1)[20, 35] == 120
