"""Tiles: a map of any size through a network that fits small ones, in overlapping pieces that are blended.

Law: where the network looks no further than the tiles' edges, the result is that of the whole map; blending is a
partition of unity, so a network that returns its input gives it back.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def blended(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    tiles: tuple[int, int],
    *,
    decode: int = 1,
    encode: int = 1,
) -> Tensor:
    """Return the network's output for a large map, made of tiles.

    Args:
        network: (B, C, h, w) → (B, n, h · decode / encode, …).
        x: (B, C, H, W); sides that divide by `encode`.
        tiles: Side of a tile and overlap of neighbours, in units of the coarser map.
        decode: How many times larger outputs are than inputs.
        encode: How many times smaller.

    Returns:
        (B, n, H · decode / encode, W · decode / encode).
    """
    axes = [_axis(side // encode, tiles, decode) for side in x.shape[2:]]
    out: Tensor | None = None
    for row, vertical in axes[0]:
        for column, level in axes[1]:
            made = network(_cut(x, row, column, encode))
            if out is None:
                out = made.new_zeros(*made.shape[:2], *(side * decode // encode for side in x.shape[2:]))
            _cut(out, row, column, decode).add_(made * vertical.to(made)[:, None] * level.to(made))
    if out is None:
        raise ValueError("an empty map has no tiles")
    return out


def _cut(x: Tensor, row: range, column: range, factor: int) -> Tensor:
    """Return the part of a map that a tile covers, in units `factor` times coarser than the map's own."""
    vertical, level = (slice(part.start * factor, part.stop * factor) for part in (row, column))
    return x[..., vertical, level]


def _axis(side: int, tiles: tuple[int, int], factor: int) -> list[tuple[range, Tensor]]:
    """Return along one side each tile's place, and how much each of its lines counts, (length · factor,)."""
    length = min(tiles[0], side)
    starts = list(_starts(side, *tiles))
    weights = torch.zeros(len(starts), side * factor)
    for index, start in enumerate(starts):
        weights[index, start * factor : (start + length) * factor] = _weights(index, starts, length, factor)
    weights /= weights.sum(0)
    places = [range(start, start + length) for start in starts]
    return [(p, w[p.start * factor : p.stop * factor]) for p, w in zip(places, weights, strict=True)]


def _starts(side: int, tile: int, overlap: int) -> Iterator[int]:
    """Yield where tiles begin: evenly spread, overlapping by at least `overlap`, the last one at the end."""
    free = max(side - tile, 0)
    count = 1 + -(-free // (tile - overlap))
    yield from dict.fromkeys(round(place * free / max(count - 1, 1)) for place in range(count))


def _weights(index: int, starts: list[int], length: int, factor: int) -> Tensor:
    """Return the ramps of a tile towards its neighbours, (length · factor,).

    A ramp lies in the middle quarter of the overlap: the lines nearest to an edge, which miss their surroundings most,
    count nothing.
    """
    place = (torch.arange(length * factor) + 0.5) / factor + starts[index]
    weights = torch.ones(length * factor)
    if index:
        weights *= _ramp(place, starts[index], starts[index - 1] + length)
    if index + 1 < len(starts):
        weights *= 1 - _ramp(place, starts[index + 1], starts[index] + length)
    return weights


def _ramp(place: Tensor, low: float, high: float) -> Tensor:
    """Return 0 before the middle quarter of [low, high], 1 after it, and a smooth rise between."""
    share = ((place - low) / (high - low) * 4 - 1.5).clamp(0, 1)
    return share.square() * (3 - 2 * share)
