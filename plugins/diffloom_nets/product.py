"""Products of tokens with weights as they lie in memory, and what comes after them: oneDNN's, for inference on a CPU.

A layer's weights are neither rearranged nor kept twice; `pack` is for the smaller factor of many products. A bias, a
gelu, a factor or a summand is applied while the product is still in the cache. A convolution is one such product, with
the window of every output pixel as a token; that is how many weights meet few pixels fastest.
"""

import torch
from torch import Tensor
from torch.nn import functional

Pair = tuple[int, int]

_FEW_PIXELS = 96  # for which the smaller factor, which oneDNN rearranges, is the windows and not the weights
_ONE_PIXEL = [0, 0], [1, 1], [1, 1]  # padding, stride and dilation of a convolution with windows of one pixel


def multiply(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    gelu: bool = False,
    times: Tensor | None = None,
    plus: Tensor | None = None,
) -> Tensor:
    """Return gelu(x Wᵀ + b), (x Wᵀ + b) ⊙ times or (x Wᵀ + b) + plus; not differentiable.

    Args:
        x: (…, inputs), float32 or bfloat16, contiguous.
        weight: (outputs, inputs), it or its transpose contiguous, of the type of x.
        bias: (outputs,), or `None`.
        gelu: Whether to apply the exact gelu.
        times: A factor (…, outputs); alone.
        plus: A summand (…, outputs); alone.

    Returns:
        (…, outputs), contiguous.
    """
    ops = torch.ops.mkldnn
    other, name = (times, "mul") if times is not None else (plus, "add")
    if other is not None:
        out: Tensor = ops._linear_pointwise.binary(x.contiguous(), other.contiguous(), weight, bias, name)
    else:
        out = ops._linear_pointwise(x.contiguous(), weight, bias, "gelu" if gelu else "none", [], "none")
    return out


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair, stride: Pair) -> Tensor:
    """Return a convolution; not differentiable.

    Args:
        x: (B, in, H, W), best in channels_last.
        weight: (out, in, h, w), in channels_last, of the type of x.
        bias: (out,), or `None`.
        padding: Zeros around x, along height and width.
        stride: Steps of the window, along height and width.

    Returns:
        (B, out, H′, W′), channels_last.
    """
    height, width = weight.shape[2:]
    windows = _windows(x.permute(0, 2, 3, 1).contiguous(), (height, width), padding, stride).flatten(3)
    filters = weight.permute(0, 2, 3, 1).flatten(1).contiguous()
    pixels = windows.shape[:3].numel()
    if pixels > _FEW_PIXELS:
        out = multiply(windows, filters, bias)
    else:
        out = multiply(filters, windows.flatten(0, 2), None).T.contiguous().view(*windows.shape[:3], -1)
        out = out if bias is None else out.add_(bias)
    return out.permute(0, 3, 1, 2)


def pack(weight: Tensor, rows: int) -> Tensor:
    """Return weights (groups, outputs, inputs), float32, as `grouped` multiplies so many rows with them fastest.

    The layout is oneDNN's own and only `grouped` reads it; other numbers of rows are multiplied too, perhaps slower.
    """
    groups, outputs, inputs = weight.shape
    taps, shape = weight.reshape(groups * outputs, inputs, 1, 1), (1, groups * inputs, rows, 1)
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(taps, *_ONE_PIXEL, groups, shape)
    return packed


def grouped(x: Tensor, packed: Tensor, groups: int) -> Tensor:
    """Return x_g W_gᵀ for every group g, as a grouped convolution with windows of one pixel; not differentiable.

    Args:
        x: (rows, groups, inputs), float32, contiguous.
        packed: Weights (groups, outputs, inputs) from `pack`.
        groups: How many.

    Returns:
        (rows, groups, outputs), contiguous.
    """
    pixels = x.view(1, len(x), 1, -1).permute(0, 3, 1, 2)
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(pixels, packed, None, *_ONE_PIXEL, groups, "none", [], "")
    return out.permute(0, 2, 3, 1).view(len(x), groups, -1)


def _windows(x: Tensor, size: Pair, padding: Pair, stride: Pair) -> Tensor:
    """Return what the weights meet at each output pixel of x (B, H, W, in): (B, H′, W′, h, w · in)."""
    if any(padding):
        x = functional.pad(x, (0, 0, padding[1], padding[1], padding[0], padding[0]))
    batch, rows, columns, channels = x.shape
    image, row, pixel, _ = x.stride()
    down, across = (rows - size[0]) // stride[0] + 1, (columns - size[1]) // stride[1] + 1
    return x.as_strided(
        (batch, down, across, size[0], size[1] * channels), (image, stride[0] * row, stride[1] * pixel, row, 1)
    )
