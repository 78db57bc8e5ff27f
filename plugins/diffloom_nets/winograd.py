"""Winograd's minimal filtering F(n×n, 3×3): a 3×3 convolution with fewer multiplications.

With n = 4, sixteen outputs need 36 products per pair of channels instead of 144 (Lavin & Gray 2015, arXiv 1509.09308):
Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A  for an output tile Y (4×4), a filter g (3×3) and an input tile d (6×6).
With n = 2, four outputs need 16 instead of 36; their filters are less than half as many numbers, which counts where
they are made anew for few pixels. The points of the underlying polynomials are 0, ±2/3, ±3/2, ∞ for n = 4: the usual
0, ±1, ±2 lose twice as many digits; and 0, ±1, ∞ for n = 2.

Maps are (B, C, H, W) on a CPU, best in channels_last; a convolution pads by one and keeps H and W; arithmetic is
float32. Batches and large maps are worked off in pieces, in buffers that are kept: fresh pages would cost as much as
the products.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from diffloom_nets import product
from diffloom_nets.buffers import buffer

_PIECE = 128  # tiles at a time: the buffers stay in the cache
_MOST_FILTERS = 1 << 24  # numbers in a buffer of filters that are not kept
_MANY_OUTPUTS = 512  # that repay packing the tiles


class Tiling:
    """The three matrices of F(n×n, 3×3), each for both sides of a tile at once, float32.

    Args:
        points: Of the polynomials beside infinity, n + 1.

    Attributes:
        side: n.
        window: n + 2, the side of an input tile.
        data: Bᵀ ⊗ Bᵀ, (window², window²).
        filters: G ⊗ G, (window², 9).
        output: Aᵀ ⊗ Aᵀ, (n², window²).
    """

    def __init__(self, *points: float) -> None:
        self.side, self.window = len(points) - 1, len(points) + 1
        powers = torch.tensor(points, dtype=torch.float64, device="cpu")  # not where the first import happens to be
        powers = powers.unsqueeze(1) ** torch.arange(self.window, device="cpu")

        def values(terms: int) -> Tensor:
            """Return the rows that evaluate a polynomial of so many terms at the points, the last at infinity."""
            infinity = torch.zeros(1, terms, dtype=torch.float64, device="cpu")
            infinity[0, -1] = 1
            return torch.cat([powers[:, :terms], infinity])

        b = torch.linalg.inv(values(self.window)).T
        size = b.abs().sum(1, keepdim=True)  # shared between data and filters, so that neither grows
        a, g, b = values(self.side).T, values(3) * size, b / size
        self.data, self.filters, self.output = (torch.kron(m, m).float() for m in (b, g, a))

    def tiles(self, side: int) -> int:
        """Return how many tiles cover a side."""
        return -(-side // self.side)


FOUR = Tiling(0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
TWO = Tiling(0, 1, -1)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution of x with `weight` (out, in, 3, 3) plus `bias` (out,), differentiable."""
    out: Tensor = _Convolution.apply(x, weight, bias)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


def transform(weight: Tensor) -> Tensor:
    """Return G g Gᵀ for every filter of `weight` (out, in, 3, 3), as (36, in, out), float32."""
    return _filters(weight.detach()).contiguous()


def products(x: Tensor, filters: Tensor, bias: Tensor | None, *, silu: bool = False) -> Tensor:
    """Return the convolution of x, or of silu(x), with transformed filters; not differentiable.

    Args:
        x: (B, in, H, W).
        filters: (36, in, out), any strides.
        bias: (out,), or `None`.
        silu: Whether to apply SiLU first.

    Returns:
        (B, out, H, W) in the type of x, channels_last.
    """
    return _products(x, filters.shape[2], lambda: iter([(slice(None), filters)]), bias, silu, FOUR)


def transient(x: Tensor, weight: Tensor, bias: Tensor | None, *, silu: bool = False, tiling: Tiling = FOUR) -> Tensor:
    """Return what `products` does, for a weight (out, in, 3, 3) whose filters are made part by part, and not kept."""
    outputs = weight.shape[0]
    return _products(x, outputs, lambda: _parts(weight, tiling), bias, silu, tiling, packs=outputs >= _MANY_OUTPUTS)


def _products(
    x: Tensor,
    channels: int,
    parts: Callable[[], Iterator[tuple[slice, Tensor]]],
    bias: Tensor | None,
    silu: bool,
    tiling: Tiling,
    *,
    packs: bool = False,
) -> Tensor:
    """Return the convolution with filters that come in parts, each with the outputs that are its.

    Where it packs, the tiles take the part of weights, which are rearranged, and the filters that of tokens, which are
    multiplied as they lie.
    """
    batch, _, height, width = x.shape
    n, down, across = tiling.side, tiling.tiles(height), tiling.tiles(width)
    out = x.new_empty(batch, down, n, across, n, channels)
    bands, data = list(_bands(batch, down, across)), None
    for part, filters in parts():
        for items, rows in bands:
            if data is None or len(bands) > 1:
                data = _data(_framed(x[items], tiling, silu, rows), tiling)
                if packs:
                    data = product.pack(buffer("tiles", *data.shape).copy_(data), rows=filters.shape[2])
            target = out[items, rows][..., part]
            maps = (_maps_of_packed if packs else _maps)(data, filters, tiling)
            maps = maps.view(n, n, target.shape[0], -1, across, target.shape[-1])
            maps = maps.permute(2, 3, 0, 4, 1, 5)
            if bias is None:
                target.copy_(maps)
            else:
                torch.add(maps, bias[part], out=target)
    out = out.view(batch, down * n, across * n, channels)[:, :height, :width].permute(0, 3, 1, 2)
    return out.contiguous(memory_format=torch.channels_last)


def _maps(data: Tensor, filters: Tensor, tiling: Tiling) -> Tensor:
    """Return Aᵀ [filters ⊙ data] A, (n², tiles, out), in a buffer; frame and tiles are no longer needed then."""
    shape = *data.shape[:2], filters.shape[2]
    sums = torch.bmm(data, filters, out=buffer("tiles", *shape)).flatten(1)
    maps = torch.mm(tiling.output, sums, out=buffer("frame", tiling.side**2, sums.shape[1]))
    return maps.view(-1, *shape[1:])


def _maps_of_packed(data: Tensor, filters: Tensor, tiling: Tiling) -> Tensor:
    """Return what `_maps` does, for data that `product.pack` made and for filters that `_parts` made."""
    sums = product.grouped(filters.permute(2, 0, 1), data, groups=tiling.window**2)
    maps = torch.matmul(tiling.output, sums, out=buffer("frame", len(sums), tiling.side**2, sums.shape[2]))
    return maps.permute(1, 2, 0)


def _parts(weight: Tensor, tiling: Tiling) -> Iterator[tuple[slice, Tensor]]:
    """Yield some outputs after others with their filters, (window², in, some), in a buffer."""
    outputs, inputs = weight.shape[:2]
    taps = weight.detach().permute(0, 2, 3, 1).flatten(1, 2)
    count = -(-outputs * tiling.window**2 * inputs // _MOST_FILTERS)
    step = -(-outputs // count)  # parts are alike, so that what is packed for one fits all
    for first in range(0, outputs, step):
        part = slice(first, min(first + step, outputs))
        filters = buffer("filters", part.stop - first, tiling.window**2, inputs)
        torch.matmul(tiling.filters, taps[part].float(), out=filters)
        yield part, filters.permute(1, 2, 0)


class _Convolution(torch.autograd.Function):
    """The convolution and its gradients, each of them with a quarter of the multiplications."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return products(x, _filters(weight), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        if torch.is_grad_enabled():  # the gradient will be differentiated itself
            ones, sizes = [1, 1], [weight.shape[0]]
            return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
                grad, x, weight, sizes, ones, ones, ones, False, [0, 0], 1, wanted
            )
        return (
            products(grad, _filters(weight, back=True), None) if wanted[0] else None,
            _weight_gradient(x, grad, weight) if wanted[1] else None,
            grad.sum((0, 2, 3)) if wanted[2] else None,
        )


def _filters(weight: Tensor, *, back: bool = False) -> Tensor:
    """Return G g Gᵀ for every filter, (36, in, out), in a buffer.

    On the way back inputs and outputs change places, and filters are turned by half a turn: (36, out, in).
    """
    taps = weight.permute(0, 2, 3, 1) if back else weight.permute(1, 2, 3, 0)
    taps = buffer("taps", *taps.shape).copy_(taps).flatten(1, 2)
    matrix = FOUR.filters.flip(1) if back else FOUR.filters
    out = buffer("filters", taps.shape[0], FOUR.window**2, taps.shape[2])
    return torch.matmul(matrix, taps, out=out).transpose(0, 1)


def _weight_gradient(x: Tensor, grad: Tensor, like: Tensor) -> Tensor:
    """Return Gᵀ [(A y Aᵀ) ⊙ (Bᵀ d B)] G summed over all tiles, in the layout of the weight `like`."""
    out, channels = like.shape[:2]
    n, window = FOUR.side, FOUR.window
    down, across = FOUR.tiles(x.shape[2]), FOUR.tiles(x.shape[3])
    sums = buffer("gradient", window**2, out, channels).zero_()
    for piece in _pieces(x.shape[0], down * across):
        frame = _framed(grad[piece], FOUR)
        image, row, pixel, _ = frame.stride()
        shape = (n, n, frame.shape[0], down, across, out)
        inside = frame.as_strided(shape, (row, pixel, image, n * row, n * pixel, 1), row + pixel)
        tiles = buffer("tiles", *shape).copy_(inside).view(n**2, -1)
        spread = torch.mm(FOUR.output.T, tiles, out=buffer("sums", window**2, tiles.shape[1]))
        sums.baddbmm_(spread.view(window**2, -1, out).transpose(1, 2), _data(_framed(x[piece], FOUR), FOUR))
    taps = torch.mm(FOUR.filters.T, sums.flatten(1), out=buffer("taps", 9, out * channels))
    return torch.empty_like(like).copy_(taps.view(3, 3, out, channels).permute(2, 3, 0, 1))


def _framed(x: Tensor, tiling: Tiling, silu: bool = False, rows: slice | None = None) -> Tensor:
    """Return x, or silu(x), with zeros around it up to whole tiles, (B, H′ + 2, W′ + 2, C), in a buffer.

    Where `rows` of tiles are given, only they are there, with one row of pixels more above and below.
    """
    batch, channels, height, width = x.shape
    rows = rows or slice(0, tiling.tiles(height))
    top, bottom = rows.start * tiling.side - 1, rows.stop * tiling.side + 1
    frame = buffer("frame", batch, bottom - top, tiling.tiles(width) * tiling.side + 2, channels)
    first, last = max(top, 0), min(bottom, height)
    for edge in (frame[:, : first - top], frame[:, last - top :], frame[:, :, :1], frame[:, :, width + 1 :]):
        edge.zero_()
    inside = frame[:, first - top : last - top, 1 : width + 1].permute(0, 3, 1, 2)
    x = x[:, :, first:last]
    if silu and x.dtype == frame.dtype:
        torch.ops.aten.silu.out(x, out=inside)
    else:
        inside.copy_(functional.silu(x) if silu else x)
    return frame


def _data(frame: Tensor, tiling: Tiling) -> Tensor:
    """Return Bᵀ d B for every tile d of a framed map, (window², B · tiles, C), tile after tile in a buffer."""
    n, window = tiling.side, tiling.window
    batch, height, width, channels = frame.shape
    image, row, pixel, _ = frame.stride()
    shape = (batch, (height - 2) // n, (width - 2) // n, window, window * channels)
    windows = frame.as_strided(shape, (image, n * row, n * pixel, row, 1))
    tiles = buffer("tiles", *shape).copy_(windows).view(-1, window**2, channels)
    return torch.matmul(tiling.data, tiles, out=buffer("data", *tiles.shape)).transpose(0, 1)


def _pieces(batch: int, tiles: int) -> Iterator[slice]:
    """Yield slices of a batch whose items have so many tiles each."""
    step = max(1, _PIECE // tiles)
    return (slice(first, first + step) for first in range(0, batch, step))


def _bands(batch: int, down: int, across: int) -> Iterator[tuple[slice, slice]]:
    """Yield pieces of a batch, each some items and some of their rows of tiles."""
    step = max(1, _PIECE // across)
    for items in _pieces(batch, down * across):
        if down <= step:
            yield items, slice(0, down)
        else:
            yield from ((items, slice(first, min(first + step, down))) for first in range(0, down, step))
