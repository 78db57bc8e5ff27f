"""Whole images: bands, types and references kept, blocks that agree, and nothing lost when it is interrupted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diffloom.errors import DataError
from diffloom.noise import Noise
from diffloom.system import System
from diffloom_data.raster import Raster, open_raster
from diffloom_stablesr.enlarge import Job, enlarge, unit

rasterio: Any = pytest.importorskip("rasterio")
from affine import Affine  # noqa: E402  comes with rasterio


class Repeat:
    """A system, and its task, that repeats pixels, and counts how often it is asked."""

    device = torch.device("cpu")
    autoencoder = SimpleNamespace(stride=1)

    def __init__(self, scale: int = 4) -> None:
        self.scale, self.asked, self.largest = scale, 0, 0
        self.conditioners: dict[str, Any] = {}
        self.task = self

    def predict(self, system: Any, batch: dict[str, Any], noise: Noise) -> dict[str, Tensor]:
        """Return the image with every pixel repeated."""
        self.asked += 1
        self.largest = max(self.largest, batch["low_res"].numel())
        return {"image": functional.interpolate(batch["low_res"], scale_factor=self.scale, mode="nearest")}


def job(source: Raster, output: Path, **more: Any) -> Job:
    return Job(source, output, **({"scale": 4, "block": 16, "margin": 4} | more))


def run(made: Job, system: Repeat | None = None) -> Path:
    return enlarge(cast(System, system or Repeat(made.scale)), made)


def geotiff(path: Path, bands: int, dtype: str, **more: Any) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(0).integers(0, 200, (bands, 37, 50)).astype(dtype)
    profile = {"driver": "GTiff", "dtype": dtype, "count": bands, "height": 37, "width": 50, "crs": "EPSG:32632"}
    with rasterio.open(path, "w", transform=Affine(10, 0, 5e5, 0, -10, 5e6), **profile, **more) as file:
        file.write(values)
        for band in range(bands):
            file.set_band_description(band + 1, f"B{band + 1:02}")
    return values


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (4, "uint16"), (8, "uint8"), (4, "int16")])
def test_a_geotiff_keeps_bands_type_and_reference(tmp_path: Path, bands: int, dtype: str) -> None:
    values = geotiff(tmp_path / "in.tif", bands, dtype)
    run(job(open_raster(tmp_path / "in.tif"), tmp_path / "out.tif"))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert (file.count, file.height, file.width) == (bands, 4 * 37, 4 * 50)
        assert file.dtypes[0] == dtype
        assert file.crs.to_epsg() == 32632
        assert file.transform == Affine(2.5, 0, 5e5, 0, -2.5, 5e6)
        assert file.descriptions[-1] == f"B{bands:02}"
        assert np.array_equal(file.read(), values.repeat(4, 1).repeat(4, 2))


def test_what_is_no_data_stays_none(tmp_path: Path) -> None:
    values = geotiff(tmp_path / "in.tif", 2, "uint8", nodata=7)
    run(job(open_raster(tmp_path / "in.tif"), tmp_path / "out.tif"))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.nodata == 7
        assert np.array_equal(file.read() == 7, (values == 7).repeat(4, 1).repeat(4, 2))


def test_numbers_without_a_range_ask_for_one(tmp_path: Path) -> None:
    values = geotiff(tmp_path / "in.tif", 1, "float32")
    with pytest.raises(DataError, match="--range LOW HIGH"):
        open_raster(tmp_path / "in.tif")
    run(job(open_raster(tmp_path / "in.tif", (0.0, 200.0)), tmp_path / "out.tif", scale=2), Repeat(2))
    with rasterio.open(tmp_path / "out.tif") as file:
        np.testing.assert_allclose(file.read(), values.repeat(2, 1).repeat(2, 2), atol=1e-4)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_picture_becomes_a_picture(tmp_path: Path, mode: str) -> None:
    picture = Image.linear_gradient("L").resize((30, 20)).convert(mode)
    picture.save(tmp_path / "in.png")
    run(job(open_raster(tmp_path / "in.png"), tmp_path / "out.png"))
    with Image.open(tmp_path / "out.png") as out:
        assert out.mode == mode
        assert np.array_equal(np.asarray(out), np.asarray(picture).repeat(4, 0).repeat(4, 1))


def test_blocks_see_their_surroundings_and_meet_without_a_seam(tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", 1, "uint8")

    class Blur(Repeat):
        def predict(self, system: Any, batch: dict[str, Any], noise: Noise) -> dict[str, Tensor]:
            padded = functional.pad(batch["low_res"], (2,) * 4, mode="replicate")
            return super().predict(system, {"low_res": functional.avg_pool2d(padded, 5, 1)}, noise)

    source = open_raster(tmp_path / "in.tif")
    run(job(source, tmp_path / "parts.tif"), Blur())
    run(job(source, tmp_path / "whole.tif", block=64), Blur())
    with rasterio.open(tmp_path / "parts.tif") as parts, rasterio.open(tmp_path / "whole.tif") as whole:
        assert np.array_equal(parts.read(), whole.read())


def test_no_more_is_held_than_a_block_and_its_margin(tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", 3, "uint8")
    system = Repeat()
    run(job(open_raster(tmp_path / "in.tif"), tmp_path / "out.tif"), system)
    assert system.asked == 3 * 4
    assert system.largest <= 3 * 24 * 24


def test_an_interrupt_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", 1, "uint8")
    made = job(open_raster(tmp_path / "in.tif"), tmp_path / "out.tif")
    first, second = Repeat(), Repeat()

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enlarge(cast(System, first), made, stop)
    assert not made.output.exists()
    run(made, second)
    assert (first.asked, second.asked) == (5, 12 - 5)
    assert not made.parts.exists()
    run(job(made.source, tmp_path / "again.tif"))
    assert (tmp_path / "again.tif").read_bytes() == (tmp_path / "out.tif").read_bytes()


def test_blocks_of_other_weights_are_not_taken(tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", 1, "uint8")
    source, out = open_raster(tmp_path / "in.tif"), tmp_path / "out.tif"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enlarge(cast(System, Repeat()), job(source, out, model="one"), stop)
    other = Repeat()
    run(job(source, out, model="two"), other)
    assert other.asked == 12


def test_a_system_of_other_bands_is_told(tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", 2, "uint8")
    with pytest.raises(DataError, match="trained on as many bands"):
        run(job(open_raster(tmp_path / "in.tif"), tmp_path / "out.tif"), Repeat(2))
    assert not (tmp_path / "out.tif").exists()


def test_further_bands_go_through_in_threes_and_opacity_beside_them(tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", 5, "uint8", photometric="RGB", alpha="NO")
    with rasterio.open(tmp_path / "in.tif", "r+") as file:
        file.colorinterp = [*file.colorinterp[:4], rasterio.enums.ColorInterp.alpha]
        values = file.read()

    class Threes(Repeat):
        def predict(self, system: Any, batch: dict[str, Any], noise: Noise) -> dict[str, Tensor]:
            assert batch["low_res"].shape[:2] == (2, 3)
            assert len(noise) == 2
            return super().predict(system, batch, noise)

    source = open_raster(tmp_path / "in.tif")
    assert source.opacity == (4,)
    run(job(source, tmp_path / "out.tif", channels=3), Threes())
    with rasterio.open(tmp_path / "out.tif") as file:
        made = file.read()
        assert file.colorinterp[4] == rasterio.enums.ColorInterp.alpha
        assert np.array_equal(made[:4], values[:4].repeat(4, 1).repeat(4, 2))
        assert abs(made[4].astype(float).mean() - values[4].mean()) < 1


def test_noise_belongs_to_places_and_blocks_are_blended(tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", 1, "uint8")

    class Grain(Repeat):
        def predict(self, system: Any, batch: dict[str, Any], noise: Noise) -> dict[str, Tensor]:
            large = super().predict(system, batch, noise)["image"]
            return {"image": (noise.normal(large, "grain") / 8).clamp(-1, 1)}

    class Step(Repeat):
        def predict(self, system: Any, batch: dict[str, Any], noise: Noise) -> dict[str, Tensor]:
            large = super().predict(system, batch, noise)["image"]
            return {"image": torch.full_like(large, 0.5 * (-1) ** self.asked)}

    source = open_raster(tmp_path / "in.tif")
    run(job(source, tmp_path / "parts.tif"), Grain())
    run(job(source, tmp_path / "whole.tif", block=64), Grain())
    run(job(source, tmp_path / "steps.tif", margin=8), Step())
    run(job(source, tmp_path / "hard.tif", margin=0), Step())
    with rasterio.open(tmp_path / "parts.tif") as parts, rasterio.open(tmp_path / "whole.tif") as whole:
        assert np.abs(parts.read().astype(int) - whole.read()).max() <= 1  # of 255: rounding
    with rasterio.open(tmp_path / "steps.tif") as steps, rasterio.open(tmp_path / "hard.tif") as hard:
        jumps = [np.abs(np.diff(file.read(1).astype(int))).max() for file in (steps, hard)]
    assert jumps[0] < 30 < 120 < jumps[1]  # steepest towards the last column's narrow block


def test_blocks_fall_on_latents_and_windows() -> None:
    system: Any = SimpleNamespace(autoencoder=SimpleNamespace(stride=4), plan=SimpleNamespace(window=None))
    assert [unit(system, scale) for scale in (1, 2, 4, 3)] == [4, 2, 1, 4]
    system.plan.window = 16
    assert [unit(system, scale) for scale in (2, 4)] == [16, 8]
