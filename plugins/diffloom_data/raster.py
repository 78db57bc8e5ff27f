"""Rasters: pictures and GeoTIFFs of any number of bands, read and written window by window.

A GeoTIFF keeps bands, their descriptions, the type of its values, its no-data value and its reference; where the image
is enlarged, the size of a pixel is divided by the factor. Numbers of a type that counts are mapped to [−1, 1] from its
whole range, others from a range that is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diffloom.errors import DataError, DiffloomError

GEO = frozenset({".tif", ".tiff"})

_WHERE = "raster"
_BLOCK = 256


@dataclass(frozen=True)
class Raster:
    """An image on disk.

    Attributes:
        path: The file.
        size: Height and width.
        bands: How many.
        dtype: Of the stored numbers.
        limits: Stored numbers that become −1 and 1.
        profile: What rasterio says of a GeoTIFF; empty for a picture.
        pixels: (bands, H, W) of a picture; a GeoTIFF is read when it is needed.
        opacity: Bands that say how opaque the others are, and are no picture.
    """

    path: Path
    size: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]
    limits: tuple[float, float]
    profile: Mapping[str, Any] = field(default_factory=dict)
    pixels: Tensor | None = None
    opacity: tuple[int, ...] = ()

    def values(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a window as it is stored, float64 (bands, height, width); what is no data is NaN."""
        if self.pixels is not None:
            return self.pixels[:, top : top + height, left : left + width].double()
        with _rasterio().open(self.path) as file:
            stored = file.read(window=_window(top, left, height, width))
        values = torch.from_numpy(stored.astype(np.float64))
        return torch.where(self._missing(values), torch.nan, values)

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a window, float32 (bands, height, width), brought to [−1, 1]; what is no data is −1."""
        low, high = self.limits
        scaled = (self.values(top, left, height, width) - low) / (high - low) * 2 - 1
        return scaled.nan_to_num(-1.0).clamp(-1, 1).float()

    def missing(self, top: int, left: int, height: int, width: int) -> Tensor | None:
        """Return where a window has no data, bool (bands, height, width); `None` where the file knows no such value."""
        if self.profile.get("nodata") is None:
            return None
        return self.values(top, left, height, width).isnan()

    def stored(self, x: Tensor, missing: Tensor | None = None) -> np.ndarray[Any, Any]:
        """Return values in [−1, 1] as numbers of the file's own type, and its no-data value where `missing` is true."""
        low, high = self.limits
        values = (x.double().clamp(-1, 1) + 1) / 2 * (high - low) + low
        found = values.numpy()
        if self.dtype.kind in "iu":
            found = np.rint(found)
        if missing is not None:
            found = np.where(missing.numpy(), float(self.profile["nodata"]), found)
        return found.astype(self.dtype)

    def _missing(self, values: Tensor) -> Tensor:
        nodata = self.profile.get("nodata")
        gaps = values.isnan()
        return gaps if nodata is None or np.isnan(nodata) else gaps | (values == float(nodata))


def open_raster(path: Path, limits: tuple[float, float] | None = None) -> Raster:
    """Return an image file, its values not yet read where it is a GeoTIFF.

    Args:
        path: A GeoTIFF, or a picture in any format that Pillow reads.
        limits: Stored numbers that become −1 and 1; by default all that the type can count.

    Raises:
        DataError: The file cannot be read, or its type has no range and none is given.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}", where=_WHERE)
    if path.suffix.lower() in GEO:
        return _open_geo(path, limits)
    try:
        with Image.open(path) as file:
            mode = "L" if file.mode in ("1", "L") else "RGBA" if "A" in file.mode else "RGB"
            pixels = np.atleast_3d(np.asarray(file.convert(mode))).copy()
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"this is no readable picture: {error}", where=str(path)) from error
    values = torch.from_numpy(pixels).permute(2, 0, 1)
    size, opacity = (values.shape[1], values.shape[2]), (3,) if mode == "RGBA" else ()
    return Raster(path, size, len(values), np.dtype("uint8"), limits or (0.0, 255.0), pixels=values, opacity=opacity)


def _open_geo(path: Path, limits: tuple[float, float] | None) -> Raster:
    library = _rasterio()
    try:
        with library.open(path) as file:
            profile, dtype = dict(file.profile), np.dtype(file.dtypes[0])
            profile["descriptions"], profile["tags"] = file.descriptions, file.tags()
            profile["colorinterp"] = file.colorinterp
            if len(set(file.dtypes)) > 1:
                raise DataError("its bands have different types", where=str(path), got=", ".join(set(file.dtypes)))
    except library.errors.RasterioIOError as error:
        raise DataError(f"this is no readable GeoTIFF: {error}", where=str(path)) from error
    if limits is None:
        if dtype.kind not in "iu":
            raise DataError(
                f"numbers of type {dtype} have no range of their own",
                where=str(path),
                expected="--range LOW HIGH",
                remedy="say which numbers are black and white, as the model saw them",
            )
        info = np.iinfo(dtype)
        limits = (float(info.min), float(info.max))
    opacity = tuple(i for i, kind in enumerate(profile["colorinterp"]) if kind == library.enums.ColorInterp.alpha)
    size, bands = (profile["height"], profile["width"]), profile["count"]
    return Raster(path, size, bands, dtype, limits, profile, opacity=opacity if len(opacity) < bands else ())


class Writer:
    """The enlarged raster; a GeoTIFF is written window by window, a picture at the end.

    Args:
        path: What to write.
        source: What it is made of.
        scale: How many times larger it is.
    """

    def __init__(self, path: Path, source: Raster, scale: int) -> None:
        self.path, self.source = path, source
        height, width = (side * scale for side in source.size)
        self.file: Any = None
        self.canvas: np.ndarray[Any, Any] | None = None
        if path.suffix.lower() in GEO:
            self.file = _rasterio().open(path, "w", **_profile(source, scale))
            for index, text in enumerate(source.profile.get("descriptions") or (), 1):
                if text:
                    self.file.set_band_description(index, text)
            self.file.update_tags(**(source.profile.get("tags") or {}))
            if source.profile.get("colorinterp"):
                self.file.colorinterp = source.profile["colorinterp"]
        else:
            self.canvas = np.zeros((source.bands, height, width), dtype=source.dtype)

    def write(self, values: np.ndarray[Any, Any], top: int, left: int) -> None:
        """Write a window (bands, h, w) of stored numbers."""
        height, width = values.shape[1:]
        if self.file is not None:
            self.file.write(values, window=_window(top, left, height, width))
        elif self.canvas is not None:
            self.canvas[:, top : top + height, left : left + width] = values

    def close(self) -> None:
        """Finish the file."""
        if self.file is not None:
            self.file.close()
        elif self.canvas is not None:
            rows = self.canvas.transpose(1, 2, 0)
            Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows).save(self.path)


def enlarged_mask(missing: Tensor, scale: int) -> Tensor:
    """Return a mask (bands, h, w) in the size of the answer: every pixel becomes scale × scale."""
    return functional.interpolate(missing[None].float(), scale_factor=scale, mode="nearest")[0].bool()


def _profile(source: Raster, scale: int) -> dict[str, Any]:
    """Return what rasterio writes: the source's profile, with pixels `scale` times smaller."""
    height, width = (side * scale for side in source.size)
    made: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": str(source.dtype),
        "count": source.bands,
        "height": height,
        "width": width,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }
    if min(height, width) >= _BLOCK:
        made |= {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK}
    for key in ("crs", "nodata", "photometric"):
        if source.profile.get(key) is not None:
            made[key] = source.profile[key]
    transform = source.profile.get("transform")
    if transform is not None:
        a, b, c, d, e, f = tuple(transform)[:6]
        made["transform"] = type(transform)(a / scale, b / scale, c, d / scale, e / scale, f)
    return made


def _window(top: int, left: int, height: int, width: int) -> Any:
    return _rasterio().windows.Window(left, top, width, height)


def _rasterio() -> Any:
    try:
        import rasterio
        import rasterio.enums
        import rasterio.errors
        import rasterio.windows
    except ImportError as error:
        raise DiffloomError(
            "GeoTIFFs are read by a library that is not installed",
            where=_WHERE,
            expected="rasterio",
            remedy="pip install 'diffloom[geo]'",
        ) from error
    return rasterio
