"""The convolution of every block here, and how layers start."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom_nets import doubling, product, winograd
from diffloom_nets.prepared import Prepared, arithmetic, on_cpu

Layer = TypeVar("Layer", bound=nn.Conv2d | nn.Linear)

_FEWEST_CHANNELS = 96  # for Winograd: fewer cost less than its transforms
_SMALLEST_SIDE = 16  # of a map in inference: smaller ones do not repay keeping four times the weights
_MOST_WEIGHTS = 3 << 16  # in · out in inference: at most 27 MiB are kept per layer
_FEWEST_TILES = 128  # of a batch in training, where the weights are transformed at every step
_MOST_TILES = 256  # of a batch in inference for which transformed weights are kept: more repay doing it again
_FEWEST_UNKEPT = 32  # for which weights that are too many to be kept are transformed every time
_FEWEST_HALVES = 64  # tiles of half the side for which that is done where there are fewer whole ones
_MOST_KEPT = 1 << 21  # weights that are kept a second time, in the layout that convolves fastest
_FEWEST_DOUBLED = 64  # pixels of a batch that repay filters of their own where they are doubled
_FEWEST_IN_PHASES = 256  # such pixels where that goes by phases
_MOST_PIXELS = 512  # of a batch's output that is computed as one product of matrices


class Conv2d(nn.Conv2d):
    """A convolution that can be shifted, fed through SiLU, and is prepared for inference on a CPU.

    Parameters, state and outputs (up to rounding) are those of `torch.nn.Conv2d`. On a CPU, 3×3 convolutions use
    Winograd's algorithm where it is faster. In evaluation mode without gradients up to 2 · 10⁶ weights are kept in
    the layout that is fastest until they change; weights written through `tensor.data` are seen after the next
    `eval()`. More are not kept twice: few pixels are one product with them, many are Winograd's on the fly.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight.data = self.weight.data.contiguous(memory_format=torch.channels_last)
        self._prepared = Prepared()
        plain = self.groups == 1 and self.padding_mode == "zeros" and isinstance(self.padding, tuple)
        self._preparable = plain and self.dilation == (1, 1)
        self._minimal = (
            self._preparable
            and (self.kernel_size, self.stride, self.padding) == ((3, 3), (1, 1), (1, 1))
            and min(self.in_channels, self.out_channels) >= _FEWEST_CHANNELS
        )

    def forward(self, x: Tensor, shift: Tensor | None = None, *, silu: bool = False, double: bool = False) -> Tensor:
        """Return the convolution of x, or of silu(x), plus `shift`.

        Args:
            x: (B, in_channels, H, W); with `silu` it may be overwritten when no gradients are taken.
            shift: (B, out_channels), or (1, out_channels) for the whole batch, which costs nothing.
            silu: Whether to apply SiLU first.
            double: Whether to repeat every pixel to 2×2 first.

        Returns:
            (B, out_channels, H′, W′).
        """
        bias: Tensor | None = self.bias
        if shift is not None and shift.shape[0] == 1:
            bias, shift = (shift[0] if bias is None else bias + shift[0]), None
        gradients = torch.is_grad_enabled()
        own = self._preparable and on_cpu(x, self.weight)
        if own and not gradients and not self.training and not self.weight.is_inference():
            h = self._run_prepared(x, bias, silu, double)
        else:
            self._prepared.drop()
            x = functional.silu(x, inplace=not gradients) if silu else x
            x = doubled(x) if double else x
            if own and self._minimal and self._many(x):
                h = winograd.convolve(x, self.weight, bias)
            else:
                h = self._conv_forward(x, self.weight, bias)
        if shift is None:
            return h
        return h + shift[:, :, None, None] if gradients else h.add_(shift[:, :, None, None])

    def train(self, mode: bool = True) -> "Conv2d":
        """Set the mode, and forget what was prepared."""
        self._prepared.drop()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> "Conv2d":
        self._prepared.drop()
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves it untyped

    def _run_prepared(self, x: Tensor, bias: Tensor | None, silu: bool, double: bool) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        compute = arithmetic(dtype)
        bias = None if bias is None else bias.to(compute)
        fewest = _FEWEST_DOUBLED if compute == torch.float32 else _FEWEST_IN_PHASES
        if double and self._minimal and x.numel() // self.in_channels >= fewest:
            x = functional.silu(x, inplace=True) if silu else x
            return self._doubled(x.to(compute), bias).to(dtype)
        x = doubled(x) if double else x
        if self._minimal and compute == torch.float32:
            small, tiles = self.in_channels * self.out_channels <= _MOST_WEIGHTS, x.numel() // self.in_channels // 16
            if tiles >= (_MOST_TILES if small else _FEWEST_UNKEPT):
                return winograd.transient(x.to(dtype), self.weight, bias, silu=silu)
            if not small and 4 * tiles >= _FEWEST_HALVES:
                return winograd.transient(x.to(dtype), self.weight, bias, silu=silu, tiling=winograd.TWO)
            if small and min(x.shape[2:]) >= _SMALLEST_SIDE:
                filters = self._prepared.get(self.weight, "winograd", lambda: winograd.transform(self.weight))
                return winograd.products(x.to(dtype), filters, bias, silu=silu)
        x = functional.silu(x, inplace=True) if silu else x
        x = x.to(compute).contiguous(memory_format=torch.channels_last)
        return self._convolve(x, bias).to(dtype)

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution in the type of x; few weights are kept as oneDNN wants them, the others are not."""
        if self.weight.numel() <= _MOST_KEPT:
            weight = self._prepared.get(self.weight, x.dtype, lambda: self._blocked(x.dtype, x))
            out: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, weight, bias, self.padding, self.stride, self.dilation, 1, "none", [], ""
            )
            return out
        weight, padding, stride = self.weight.detach().to(x.dtype), _pair(self.padding), _pair(self.stride)
        pixels = x.shape[0] * x.shape[2] * x.shape[3] // (stride[0] * stride[1])
        with torch.autocast("cpu", enabled=False):
            if pixels <= _MOST_PIXELS or self.kernel_size == (1, 1):
                return product.convolve(x, weight, bias, padding, stride)
            return functional.conv2d(x, weight, bias, stride, padding)

    def _doubled(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution of a doubled map in the type of x; few filters are kept, the others are not."""
        weight = self.weight.detach().to(x.dtype)
        if weight.numel() <= _MOST_KEPT:
            filters = self._prepared.get(self.weight, ("doubled", x.dtype), lambda: doubling.transform(weight).clone())
        else:
            filters = doubling.transform(weight)
        with torch.autocast("cpu", enabled=False):
            return doubling.convolve(x, filters, bias)

    def _many(self, x: Tensor) -> bool:
        """Whether a batch in training has enough tiles to repay transforming the weights."""
        fits = x.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return fits and x.shape[0] * x.shape[2] * x.shape[3] >= _FEWEST_TILES * 16

    def _blocked(self, dtype: torch.dtype, x: Tensor) -> Tensor:
        weight: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            self.weight.detach().to(dtype), self.padding, self.stride, self.dilation, 1, x.shape
        )
        return weight


def doubled(h: Tensor) -> Tensor:
    """Return a map (B, C, 2H, 2W) with every pixel of h repeated to 2×2."""
    return functional.interpolate(h, scale_factor=2.0)


def _pair(sizes: Any) -> tuple[int, int]:
    return int(sizes[0]), int(sizes[1])


def xavier(layer: Layer) -> Layer:
    """Return the layer with Xavier-uniform weights and zero bias (Ho et al. 2020)."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zero(layer: Layer) -> Layer:
    """Return the layer with everything zero, so that what it ends starts by adding nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
