"""The verb `hints`: what every hint makes of an image, as pictures, before a network learns from them."""

from pathlib import Path
from typing import Annotated

import typer

from diffloom.cli import options
from diffloom.cli.console import out
from diffloom.errors import DataError

Image = Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture, or a GeoTIFF of any number of bands.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER|FILE",
        help="A folder for all pictures, or a file for the contact sheet alone. [default: NAME-hints]",
        show_default=False,
    ),
]
Only = Annotated[
    str | None, typer.Option("--only", metavar="NAMES", help="Hints to make, such as canny,lines. [default: all]")
]
Mask = Annotated[Path | None, typer.Option("--mask", metavar="FILE", help="Class numbers: adds segmentation-map.")]
Roads = Annotated[str | None, typer.Option("--roads", metavar="NUMBERS", help="Classes of the mask: adds road-map.")]
Depth = Annotated[
    Path | None, typer.Option("--depth", metavar="FILE", help="A depth or height, one band: adds depth-map.")
]
Bands = Annotated[
    str | None,
    typer.Option("--bands", metavar="NUMBERS", help="Bands that count, from 0, such as 3,2,1. [default: all]"),
]
Limits = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--range",
        metavar="LOW HIGH",
        help="Numbers that are black and white. [default: 0 and 255 for bytes, else each band's 2nd and "
        "98th percentile]",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME.KEY=VALUE", help="A parameter of a hint; repeatable.")
]


def hints(
    image: Image,
    output: Output = None,
    only: Only = None,
    mask: Mask = None,
    roads: Roads = None,
    depth: Depth = None,
    bands: Bands = None,
    limits: Limits = None,
    settings: Settings = None,
    debug: options.Debug = False,
) -> None:
    """Show what every hint makes of an image.

    Writes one picture per hint and a contact sheet. Of a GeoTIFF, hints are GeoTIFFs of bytes with its reference.

    Examples:
      diffloom hints scene.png --only canny,lines --set canny.low=0.1
      diffloom hints sentinel2.tif --bands 3,2,1 -o sheet.png
    """
    from diffloom_hints.showing import Asked, show

    asked = Asked(
        image,
        only=None if only is None else [name.strip() for name in only.split(",") if name.strip()],
        mask=mask,
        roads=_numbers(roads, "--roads"),
        depth=depth,
        bands=_numbers(bands, "--bands"),
        limits=limits,
        settings=settings or (),
    )
    for written in show(asked, output):
        out(str(written))


def _numbers(text: str | None, where: str) -> tuple[int, ...]:
    """Return the whole numbers of a list such as `3,2,1`; none of no text."""
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise DataError("these are no numbers", where=where, expected="such as 3,2,1", got=repr(text))
    return tuple(map(int, words))
