"""A convolution as one product of matrices: every output pixel's window of inputs times the weights, as they are.

That is how few pixels meet many weights fastest: nothing of the weights is rearranged, and each is read once.
"""

import torch
from torch import Tensor
from torch.nn import functional

_FEW = 128  # rows: the product is faster the other way round, weights first

Pair = tuple[int, int]


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """Return a convolution; not differentiable.

    Args:
        x: (B, in, H, W), best in channels_last.
        weight: (out, in, h, w), best in channels_last, of the type of x.
        bias: (out,), or `None`.
        padding: Zeros around x, along height and width.
        stride: Steps of the window, along height and width.

    Returns:
        (B, out, H′, W′), channels_last.
    """
    windows = _windows(x, weight.shape[2], weight.shape[3], padding, stride)
    rows, matrix = windows.flatten(0, 2).flatten(1), weight.permute(0, 2, 3, 1).flatten(1)
    if rows.shape[0] <= _FEW:
        out = torch.mm(matrix, rows.t()).t().contiguous()
        out = out if bias is None else out.add_(bias)
    else:
        out = torch.mm(rows, matrix.t()) if bias is None else torch.addmm(bias, rows, matrix.t())
    return out.view(*windows.shape[:3], -1).permute(0, 3, 1, 2)


def _windows(x: Tensor, height: int, width: int, padding: Pair, stride: Pair) -> Tensor:
    """Return the window of each output pixel, (B, H′, W′, h, w · in), without a copy but for the padding."""
    frame = functional.pad(x, (padding[1], padding[1], padding[0], padding[0])).permute(0, 2, 3, 1).contiguous()
    batch, rows, columns, channels = frame.shape
    image, row, pixel, _ = frame.stride()
    size = (batch, (rows - height) // stride[0] + 1, (columns - width) // stride[1] + 1, height, width * channels)
    return frame.as_strided(size, (image, stride[0] * row, stride[1] * pixel, row, 1))
