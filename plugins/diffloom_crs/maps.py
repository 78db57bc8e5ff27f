"""Maps: several pictures of one scene, each of which may be absent, as the channels of one.

Law: map i of n has its own channels in the stack, in the order of the recipe; an absent one is 0 there. Absent and
empty are then the same, unless every map has a channel more, which is 1 where it is there.
"""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from diffloom.conditioner import Batch, length
from diffloom.errors import DataError
from diffloom.noise import Noise

Share = Annotated[float, Field(ge=0, le=1)]
Stacked = dict[str, Tensor]
_MAP = 4  # dimensions of a batch of maps


class LocalMap(BaseModel):
    """What is known of one map."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: Annotated[int, Field(gt=0, description="Of the map; a map of one is repeated.")] = 3
    drop: Annotated[float, Field(ge=0, le=1, description="How often training hides it, where it hides some.")] = 0.5


def stacked(batch: Batch, specs: Mapping[str, LocalMap], size: tuple[int, int], device: torch.device) -> Stacked:
    """Return the maps of a batch.

    Args:
        batch: With some of the maps, (B, channels or 1, H, W) or (B, H, W), in [0, 1], all of one size.
        specs: Key in the batch → what is known of the map, in order.
        size: Height and width where there is none.
        device: Where to.

    Returns:
        `maps` (B, Σ channels, H, W) and `there` (B, n), true where a map is present.

    Raises:
        DataError: A map has other channels, or another size than the first.
    """
    found = {key: _checked(key, batch[key], spec) for key, spec in specs.items() if key in batch}
    sizes = {key: (value.shape[2], value.shape[3]) for key, value in found.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(
            "the maps have different sizes",
            where="local-controls",
            expected="one size",
            got=", ".join(f"{key} {h}×{w}" for key, (h, w) in sizes.items()),
        )
    count, size = length(batch), next(iter(sizes.values()), size)
    parts = [
        found[key].to(device, non_blocking=True)
        if key in found
        else torch.zeros(count, spec.channels, *size, device=device)
        for key, spec in specs.items()
    ]
    there = torch.tensor([[key in found for key in specs]] * count, dtype=torch.bool, device=device)
    return {"maps": torch.cat(parts, 1), "there": there.view(count, len(specs))}


def kept(code: Stacked, keep: Tensor, specs: Mapping[str, LocalMap]) -> Stacked:
    """Return the stack with some maps absent; `keep` (B, n) is true for those that stay."""
    there = code["there"] & keep
    parts = torch.split(code["maps"], [spec.channels for spec in specs.values()], 1)
    shown = [torch.where(keep[:, i, None, None, None], part, 0.0) for i, part in enumerate(parts)]
    return {"maps": torch.cat(shown, 1), "there": there}


def drawn(noise: Noise, specs: Mapping[str, LocalMap], keep_all: float, drop_all: float) -> Tensor:
    """Return which maps a training step shows, (B, n) bool.

    One draw decides: with probability `keep_all` all maps stay, with `drop_all` all are hidden, else each is hidden by
    itself with its own probability.
    """
    decided = noise.uniform(torch.empty(len(noise), 1), "all")
    each = noise.uniform(torch.empty(len(noise), len(specs)), "each")
    alone = each >= torch.tensor([spec.drop for spec in specs.values()])
    return torch.where(decided < keep_all, True, torch.where(decided < keep_all + drop_all, False, alone))


def with_presence(code: Stacked) -> Tensor:
    """Return the maps with a channel more for each, (B, Σ channels + n, H, W), 1 where a map is present."""
    flags = code["there"][:, :, None, None].to(code["maps"].dtype)
    return torch.cat([code["maps"], flags.expand(-1, -1, *code["maps"].shape[2:])], 1)


def fitted(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (B, C, H, W) in a size, by taking nearest pixels where theirs is another."""
    return maps if maps.shape[2:] == size else functional.interpolate(maps, size, mode="nearest-exact")


def _checked(key: str, given: Tensor, spec: LocalMap) -> Tensor:
    value = given[:, None] if given.dim() == _MAP - 1 else given
    if value.dim() != _MAP or value.shape[1] not in (1, spec.channels) or not value.is_floating_point():
        raise DataError(
            "this is not the map that was announced",
            where=key,
            expected=f"real numbers in [0, 1], (B, {spec.channels}, H, W) or one channel",
            got=f"{value.dtype} {tuple(given.shape)}",
            remedy="set its `channels`; a transform makes colours of class numbers",
        )
    return value.expand(-1, spec.channels, -1, -1)
