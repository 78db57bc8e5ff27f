"""How the files of CRS-Diff and Uni-ControlNet name the weights of their side network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from diffloom.denoiser import Denoiser
from diffloom.layout import Layout, Weld
from diffloom_nets import ResBlock

_PREFIX = "local_adapter."
_COPY = "ldm"  # the layout in which a denoiser's copy lies in such files
_PLACES = {"in_layers.0": "norm_in", "out_layers.0": "norm_out"}
_ENTER = 5  # convolutions on the way to the finest level, each followed by a SiLU


def local_adapter(
    copy: Denoiser, sites: Sequence[str], *, shifts: int, levels: int, enhanced: bool
) -> Iterator[Layout]:
    """Yield the layouts of a side network.

    Args:
        copy: The denoiser's copy.
        sites: Its taps that look at the maps, in the order of the fusions.
        shifts: How many there are, the middle's last.
        levels: Of features.
        enhanced: Whether attention stands before the normalisations, as in CRS-Diff.
    """
    kept = copy.state_dict().keys()
    for layout in (one for one in copy.layouts() if one.name.startswith(_COPY)):
        theirs = _norms(copy, {weld.ours: weld.theirs[0] for weld in layout.welds})
        welds = [replace(weld, ours=f"copy.{weld.ours}") for weld in layout.welds if weld.ours in kept]
        names = dict(_plain(shifts, levels))
        for index, site in enumerate(sites):
            names |= _fusion(f"fusions.{index}", theirs[site], enhanced=enhanced)
        welds += [Weld(f"{a}.{part}", (f"{b}.{part}",)) for a, b in names.items() for part in ("weight", "bias")]
        name = "crs-diff" if enhanced else "uni-controlnet"
        yield Layout(name + layout.name.removeprefix(_COPY), tuple(welds), prefix=_PREFIX)


def _norms(copy: Denoiser, names: Mapping[str, str]) -> dict[str, str]:
    """Return what stands in the place of each normalisation there, by its tap."""
    found = {}
    for path, block in copy.named_modules():
        if isinstance(block, ResBlock):
            for tap, norm in zip(block.norm_taps, ("norm1", "norm2"), strict=True):
                name = names[f"{path}.{norm}.weight"].removesuffix(".weight")
                for place, other in _PLACES.items():
                    name = name.replace(place, other)
                found[tap] = name
    return found


def _fusion(ours: str, theirs: str, *, enhanced: bool) -> dict[str, str]:
    inside = f"{theirs}.fdn" if enhanced else theirs
    names = {f"{ours}.scale": f"{inside}.conv_gamma", f"{ours}.shift": f"{inside}.conv_beta"}
    if enhanced:
        parts = ("query", "key", "value")
        names |= {f"{ours}.attention.{part}": f"{theirs}.attention.{part}_conv" for part in parts}
    return names


def _plain(shifts: int, levels: int) -> Iterator[tuple[str, str]]:
    """Yield our names and theirs of what lies beside the copy."""
    for index in range(_ENTER):
        yield f"extractor.enter.{index}", f"feature_extractor.pre_extractor.{2 * index}"
    for level in range(levels):
        yield f"extractor.levels.{level}", f"feature_extractor.extractors.{level}.0"
        yield f"extractor.leave.{level}", f"feature_extractor.zero_convs.{level}"
    for index in range(shifts - 1):
        yield f"shifts.{index}", f"zero_convs.{index}.0"
    yield f"shifts.{shifts - 1}", "middle_block_out.0"
