"""Metadata: numbers about an image (date, ground sample distance, place …), added to the time embedding.

    vector = Σ_j f_j(wave(k_j)),    k_j = scale · (value_j − low_j) / (high_j − low_j)

with f_j a linear layer, or several with SiLU between them, for every item j by itself (CRS-Diff, Tang et al. 2024,
arXiv 2403.11614, section III; DiffusionSat, Khanna et al. 2024, arXiv 2312.03606, section 3.2). Items have names, since
methods differ in their order. An item may be missing from an image, and so may all of them.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner, length
from diffloom.denoiser import Denoiser
from diffloom.errors import DataError, IncompatibleParts
from diffloom.layout import Layout, Weld
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom_nets import Convention, sinusoidal, zero

Missing = Literal["nothing", "zero", "learned"]
Known = dict[str, Tensor]

CRS_DIFF: dict[str, tuple[float, float]] = {
    "year": (1980, 2024),
    "month": (0, 12),
    "day": (0, 31),
    "gsd": (0, 5),
    "cloud_cover": (0, 100),
    "lat": (-90, 90),
    "lon": (-180, 180),
}
"""The items of CRS-Diff in their order: metres per pixel, per cent, degrees."""


class Metadata(Conditioner):
    """Named numbers through the vector port; nothing said is that every item is missing.

    Args:
        items: Name → values that become 0 and `scale`, in the order of the numbers in a batch; values beyond them are
            no error. By default CRS-Diff's.
        scale: What the upper value becomes.
        width: Of the waves; by default a quarter of the vector port's width, which is that of time's in the U-Net.
        waves: How sines and cosines follow one another: interleaved [sin, cos, sin, cos, …] (CRS-Diff), adm
            [cos | sin] (DiffusionSat) or ddpm [sin | cos].
        layers: Linear layers of each item.
        missing: What a missing item says: nothing is the vector 0; zero is a k of 0, as released weights of
            DiffusionSat have it; learned is a vector of its own.
        drop_each: Probability that training hides an item, each by itself.
        zero_start: Begin with vectors of 0, so that a trained denoiser starts as it was.
        key: Where a batch has them: (B, M) with NaN where one is missing, or a mapping of names to numbers per image.
        denoiser: Whose vector port is filled.

    Raises:
        IncompatibleParts: The denoiser has no vector port.
        ValueError: An item's values are equal, or there are no items.
    """

    only_time = True
    examples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"width": 6},
        {"items": {"gsd": (0, 1), "lat": (-90, 90)}, "width": 4, "layers": 2, "waves": "adm", "missing": "learned"},
    )

    @staticmethod
    def example_batch(count: int, space: Space) -> dict[str, Any]:
        """Return numbers of some images, by name, some of them missing."""
        return {"metadata": [{"gsd": 0.5 + index, "lat": 34.05 if index else None} for index in range(count)]}

    def __init__(
        self,
        *,
        items: dict[str, tuple[float, float]] = CRS_DIFF,
        scale: Annotated[float, Field(gt=0)] = 1000.0,
        width: Annotated[int, Field(gt=1)] | None = None,
        waves: Literal["interleaved"] | Convention = "interleaved",
        layers: Annotated[int, Field(gt=0)] = 1,
        missing: Missing = "nothing",
        drop_each: Annotated[float, Field(ge=0, le=1)] = 0.0,
        zero_start: bool = True,
        key: str = "metadata",
        denoiser: Denoiser,
    ) -> None:
        super().__init__()
        _require_ranges(items)
        out = _vector_width(denoiser)
        self.width = width or max(out // 4, 2)
        self.names, self.scale, self.waves, self.missing = tuple(items), scale, waves, missing
        self.layers, self.drop_each, self.key, self.wants = layers, drop_each, key, (key,)
        self.gives = Ports(vector=out)
        low, high = (torch.tensor(ends, dtype=torch.float64) for ends in zip(*items.values(), strict=True))
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("span", high - low, persistent=False)
        self.items = nn.ModuleList(_perceptron([self.width, *[out] * layers], zero_start) for _ in items)
        self.absent = nn.Parameter(torch.zeros(len(items), out)) if missing == "learned" else None

    def encode(self, batch: Batch) -> Known:
        """Return each item's k and whether it is known, both (B, M).

        Raises:
            DataError: There are other items than were announced.
        """
        values = self._values(batch).to(self._buffer("low").device, non_blocking=True)
        known = values.isfinite()
        k = (values.double() - self._buffer("low")) / self._buffer("span") * self.scale
        return {"k": torch.where(known, k, 0.0).float(), "known": known}

    def null(self, code: Known) -> Known:
        """Return a code in which every item is missing."""
        return {"k": torch.zeros_like(code["k"]), "known": torch.zeros_like(code["known"])}

    def hide(self, code: Known, noise: Noise) -> Known:
        """Return the code with each item missing with probability `drop_each`, independently."""
        if not self.drop_each:
            return code
        kept = code["known"] & (noise.uniform(torch.empty_like(code["k"]), "items") >= self.drop_each)
        return {"k": torch.where(kept, code["k"], 0.0), "known": kept}

    def forward(self, code: Known, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        """Return the sum of what the items say, (B, width of the port)."""
        waves, known = self.embedded(code["k"]), code["known"]
        said = [item(waves[:, j]) for j, item in enumerate(self.items)]
        if self.missing == "nothing":
            said = [one * known[:, j, None] for j, one in enumerate(said)]
        elif self.absent is not None:
            said = [torch.where(known[:, j, None], one, self.absent[j].to(one.dtype)) for j, one in enumerate(said)]
        return Condition(vector=torch.stack(said).sum(0))

    def embedded(self, k: Tensor) -> Tensor:
        """Return the waves (…, width) of numbers k of any shape."""
        if self.waves != "interleaved":
            wave = sinusoidal(k, self.width, self.waves)
        else:
            cosine, sine = sinusoidal(k, self.width - self.width % 2, "adm").chunk(2, -1)
            wave = functional.pad(torch.stack([sine, cosine], -1).flatten(-2), (0, self.width % 2))
        return wave.to(next(self.items.parameters()).dtype)

    def layouts(self) -> Sequence[Layout]:
        """Return that of CRS-Diff's files, where every item has one layer."""
        if self.layers > 1 or self.absent is not None:
            return ()
        places = [(j, part) for j in range(len(self.names)) for part in ("weight", "bias")]
        welds = tuple(Weld(f"items.{j}.0.{part}", (f"mlp_models.{j}.fc1.{part}",)) for j, part in places)
        return (Layout("crs-diff", welds, prefix="metadata_emb."),)

    def _values(self, batch: Batch) -> Tensor:
        """Return the numbers (B, M), NaN where one is missing."""
        given = batch.get(self.key)
        if given is None:
            return torch.full((length(batch), len(self.names)), math.nan)
        if not isinstance(given, Tensor):
            given = torch.tensor([self._row(one) for one in given])
        if given.dim() != 2 or given.shape[1] != len(self.names):
            raise DataError(
                "these are not the numbers that were announced",
                where=self.key,
                expected=f"(B, {len(self.names)}): {', '.join(self.names)}",
                got=str(tuple(given.shape)),
                remedy="give mappings of names to numbers, or set the conditioner's `items`",
            )
        return given

    def _row(self, one: object) -> list[float]:
        if not isinstance(one, Mapping):
            raise DataError("metadata are no mapping", where=self.key, expected="names and numbers", got=repr(one))
        unknown = [name for name in one if name not in self.names]
        if unknown:
            raise DataError(
                f"nobody asked for '{unknown[0]}'",
                where=self.key,
                expected=f"some of {', '.join(self.names)}",
                got=", ".join(map(str, one)),
                remedy="name it among the conditioner's `items`, or leave it out",
            )
        return [math.nan if one.get(name) is None else float(one[name]) for name in self.names]

    def _buffer(self, name: str) -> Tensor:
        found: Tensor = self.get_buffer(name)
        return found


def _perceptron(widths: Sequence[int], zero_start: bool) -> nn.Sequential:
    """Return linear layers with SiLU between them, the last of them 0 where that is asked for."""
    steps: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        steps += [nn.SiLU()] * bool(steps) + [nn.Linear(inputs, outputs)]
    if zero_start and isinstance(steps[-1], nn.Linear):
        zero(steps[-1])
    return nn.Sequential(*steps)


def _require_ranges(items: Mapping[str, tuple[float, float]]) -> None:
    if not items:
        raise ValueError("metadata need an item at least")
    for name, (low, high) in items.items():
        if low == high:
            raise ValueError(f"the values of '{name}' that become 0 and the scale are equal: {low:g}")


def _vector_width(denoiser: Denoiser) -> int:
    width = denoiser.ports.vector
    if not width:
        raise IncompatibleParts(
            "the denoiser has no vector port",
            where="metadata",
            expected="a port beside the time embedding",
            remedy="open it: set the denoiser's `vector` to the width of its time embedding",
        )
    return width
