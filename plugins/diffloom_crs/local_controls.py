"""LocalControls: any number of maps of a scene tell a frozen denoiser where things are, through one side network.

The maps are stacked, and one extractor makes features of every level of them (`features`). A trainable copy of the
denoiser's way down and middle looks at x_t, its first residual block of each level at the features as well (`fusion`);
what it makes of every step goes through a 1×1 convolution that is 0 at the start, and shifts what the denoiser's way
up receives. One copy serves all maps, and each may be absent (Uni-ControlNet, Zhao et al. 2023, arXiv 2305.16322;
CRS-Diff, Tang et al. 2024, arXiv 2403.11614).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom.autoencoder import Autoencoder
from diffloom.condition import Affine, Condition, Ports, Tap
from diffloom.conditioner import Batch, Code, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import IncompatibleParts
from diffloom.layout import Layout
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom_crs.features import FeatureExtractor
from diffloom_crs.fusion import Fusion, How, Said
from diffloom_crs.layouts import local_adapter
from diffloom_crs.maps import LocalMap, Share, Stacked, drawn, fitted, kept, stacked, with_presence
from diffloom_nets import Conv2d, ResBlock, zero

Count = Annotated[int, Field(gt=0)]
_WHERE = "local-controls"
_MIDDLE = "mid"
_ENTRY = "down.0"

CRS_DIFF: dict[str, LocalMap] = {
    "mlsd": LocalMap(drop=0.6),
    "hed": LocalMap(),
    "sketch": LocalMap(),
    "road": LocalMap(),
    "depth": LocalMap(),
    "segmentation": LocalMap(),
}
"""The maps of CRS-Diff in the order of their channels, and how often its training hides each."""


class LocalControls(Conditioner):
    """Shifts of the skips and the middle by a copy of the denoiser that looks at maps; nothing said is no map at all.

    It comes after the conditioners whose context its copy should look at too. Metadata and other vectors are told to
    the denoiser alone. Guide the context, not the maps: they are then given in every branch.

    Args:
        maps: Key in the batch → the map's `channels`, and `drop`: how often training hides it. By default CRS-Diff's.
        fusion: How features enter the copy: enhanced (CRS-Diff) or denormalise (Uni-ControlNet) in the place of the
            normalisations of each level's first residual block, or add, once, behind its first convolution.
        widths: Of the features of each level, the finest first.
        narrow: Widths of the extractor on the way there.
        keep_all: Probability that training shows all maps.
        drop_all: Probability that it hides all of them.
        presence: Whether a channel more per map says that it is there, so that an empty map is not an absent one.
        scale: Of the shifts; one number, or one per shift: the skips, then the middle.
        denoiser: Whose copy, and whose skips and middle.
        autoencoder: Whose stride leads from the maps to what is diffused.
        space: What is diffused.

    Raises:
        IncompatibleParts: The denoiser lacks the taps, there are not as many widths as levels or scales as shifts.
    """

    examples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"maps": {"hint": {"channels": 1}, "canny": {}}, "fusion": "add", "widths": (8,), "narrow": (4, 4, 8)},
        {"maps": {"hint": {"channels": 1}}, "fusion": "add", "widths": (8,), "narrow": (4, 4, 8), "presence": True},
    )

    @staticmethod
    def example_batch(count: int, space: Space) -> dict[str, Any]:
        """Return two maps."""
        generator = torch.Generator().manual_seed(0)
        return {key: torch.rand(count, 1, *space.size, generator=generator) for key in ("hint", "canny")}

    def __init__(
        self,
        *,
        maps: dict[str, LocalMap] = CRS_DIFF,
        fusion: How = "enhanced",
        widths: Annotated[Sequence[Count], Field(min_length=1)] = (192, 256, 384, 512),
        narrow: tuple[Count, Count, Count] = (32, 64, 128),
        keep_all: Share = 0.1,
        drop_all: Share = 0.1,
        presence: bool = False,
        scale: float | Sequence[float] = 1.0,
        denoiser: Denoiser,
        autoencoder: Autoencoder,
        space: Space,
    ) -> None:
        super().__init__()
        self.specs = {key: LocalMap.model_validate(spec) for key, spec in maps.items()}
        self.wants, self.presence, self.fusion = tuple(self.specs), presence, fusion
        self.keep_all, self.drop_all = keep_all, drop_all
        self.reduction, self.size = autoencoder.stride, space.size
        outputs = {tap.name: tap.channels for tap in _outputs(denoiser)}
        sites = list(_sites(denoiser, fusion))
        _require(sites, outputs, fusion, widths)
        self.scales = _scales(scale, len(outputs))
        self.gives = Ports(affine=outputs)

        self.copy = denoiser.until(_MIDDLE)
        channels = sum(spec.channels + presence for spec in self.specs.values())
        self.extractor = FeatureExtractor(channels, self.reduction, widths, narrow)
        width = dict(zip((2**level for level in range(len(widths))), widths, strict=True))
        self.sites = {tap.name: tap.stride for tap in sites}
        self.fusions = nn.ModuleList(Fusion(width[tap.stride], tap.channels, fusion) for tap in sites)
        self.shifts = nn.ModuleList(zero(Conv2d(count, count, 1)) for count in outputs.values())
        _without(self.copy, {tap.name for tap in sites})

    def encode(self, batch: Batch) -> Stacked:
        """Return the stacked maps; those that the batch lacks are absent."""
        sides = (self.size[0] * self.reduction, self.size[1] * self.reduction)
        return stacked(batch, self.specs, sides, next(self.shifts.parameters()).device)

    def null(self, code: Code) -> Stacked:
        """Return the code of absent maps."""
        return kept(code, torch.zeros_like(code["there"]), self.specs)

    def hide(self, code: Code, noise: Noise) -> Stacked:
        """Return the code with maps hidden as CRS-Diff's training does; see `maps.drawn`."""
        keep = drawn(noise, self.specs, self.keep_all, self.drop_all)
        return kept(code, keep.to(code["there"].device, non_blocking=True), self.specs)

    def prepare(self, code: Code, given: Condition) -> Code:
        """Return the code with what the maps say at the copy's taps, and what the copy makes of the context."""
        rows, columns = (side // self.reduction for side in code["maps"].shape[2:])
        told = self.copy.prepare(Condition(given.context, given.context_mask))
        return {**code, "said": self.said(code, (rows, columns)), "told": told}

    def forward(self, code: Code, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        """Return the shifts at time t."""
        said = self._prepared_said(code, (x_t.shape[2], x_t.shape[3]))
        edits = {name: part.edit(one) for (name, one), part in zip(said.items(), self._fusions(), strict=True)}
        told = replace(_context(code.get("told"), given), concat=given.concat, affine=edits)
        _, found = self.copy(x_t, t, told, read=list(self.gives.affine))
        outputs = zip(self.gives.affine, self.shifts, self.scales, strict=True)
        return Condition(affine={name: Affine(shift=scale * shift(found[name])) for name, shift, scale in outputs})

    def layouts(self) -> Sequence[Layout]:
        """Return that of CRS-Diff's or Uni-ControlNet's files, whose copies have the keys of latent diffusion's."""
        if self.fusion == "add":
            return ()
        counts = {"shifts": len(self.shifts), "levels": len(self.extractor.levels)}
        return tuple(local_adapter(self.copy, tuple(self.sites), **counts, enhanced=self.fusion == "enhanced"))

    def said(self, code: Code, size: tuple[int, int]) -> dict[str, Said]:
        """Return scale and shift at every tap of the copy that looks at the maps, where x_t has a size."""
        maps = with_presence(code) if self.presence else code["maps"]
        features = self.extractor(fitted(maps, (size[0] * self.reduction, size[1] * self.reduction)))
        sites = zip(self.sites.items(), self._fusions(), strict=True)
        return {name: part(features[stride]) for (name, stride), part in sites}

    def _prepared_said(self, code: Code, size: tuple[int, int]) -> dict[str, Said]:
        said: dict[str, Said] | None = code.get("said")
        fits = said is not None and next(iter(said.values()))["shift"].shape[2:] == size  # the first tap has stride 1
        return said if said is not None and fits else self.said(code, size)

    def _fusions(self) -> Iterator[Fusion]:
        return (cast(Fusion, part) for part in self.fusions)


def _context(prepared: Condition | None, given: Condition) -> Condition:
    """Return what was prepared of the context, unless more is said at this step."""
    told = Condition(given.context, given.context_mask)
    counts = [0 if one is None or one.context is None else one.context.shape[1] for one in (prepared, told)]
    return prepared if prepared is not None and counts[0] == counts[1] else told


def _outputs(denoiser: Denoiser) -> list[Tap]:
    """Return the taps that are shifted: the skips, then the middle."""
    found = {tap.name: tap for tap in denoiser.taps if tap.name.startswith("skip.") or tap.name == _MIDDLE}
    middle = found.pop(_MIDDLE, None)
    return [*found.values(), middle] if middle is not None and found else []


def _sites(denoiser: Denoiser, fusion: How) -> Iterator[Tap]:
    """Yield the taps of the copy that look at the maps: the normalisations of the first block of each level."""
    if fusion == "add":
        yield from (tap for tap in denoiser.taps if tap.name == _ENTRY)
        return
    first: dict[int, str] = {}
    for tap in denoiser.taps:
        if tap.replaces and tap.name.startswith("norm.down."):
            block = tap.name.rpartition(".")[0]
            if first.setdefault(tap.stride, block) == block:
                yield tap


def _require(sites: Sequence[Tap], outputs: Mapping[str, int], fusion: How, widths: Sequence[int]) -> None:
    if not sites or not outputs:
        raise IncompatibleParts(
            "the denoiser cannot be controlled by maps",
            where=_WHERE,
            expected=f"taps skip.…, {_MIDDLE} and {_ENTRY if fusion == 'add' else 'norm.down.…'}",
            got="a denoiser without some of them",
            remedy="use a denoiser that publishes them, such as `unet`",
        )
    levels = len({tap.stride for tap in sites})
    if len(widths) != levels:
        raise IncompatibleParts(
            "every level whose blocks look at the maps has features of its own",
            where=f"{_WHERE}.widths",
            expected=f"{levels} widths",
            got=", ".join(map(str, widths)),
            remedy="with `fusion: add` it is one, else one per level of the denoiser",
        )


def _scales(scale: float | Sequence[float], count: int) -> tuple[float, ...]:
    scales = tuple(scale) if isinstance(scale, Sequence) else (scale,) * count
    if len(scales) != count:
        raise IncompatibleParts(
            "there is one scale for all shifts, or one for each",
            where=f"{_WHERE}.scale",
            expected=f"{count} numbers",
            got=str(len(scales)),
        )
    return scales


def _without(copy: nn.Module, names: set[str]) -> None:
    """Take the weights of normalisations away that edits stand in the place of."""
    for block in copy.modules():
        if isinstance(block, ResBlock):
            first, second = block.norm_taps
            if first in names:
                block.norm1 = cast(Any, nn.Identity())
            if second in names:
                block.norm2 = cast(Any, nn.Identity())
