"""A convolution as one product of matrices: the weights, as they are, times the window of every output pixel.

That is how many weights meet few pixels fastest: nothing of the weights is rearranged, and each is read once.
"""

import torch
from torch import Tensor
from torch.nn import functional

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
    out = torch.mm(weight.permute(0, 2, 3, 1).flatten(1), windows.flatten(3).flatten(0, 2))
    out = out.view(-1, *windows.shape[3:]).permute(1, 0, 2, 3).contiguous(memory_format=torch.channels_last)
    return out if bias is None else out.add_(bias[:, None, None])


def _windows(x: Tensor, height: int, width: int, padding: Pair, stride: Pair) -> Tensor:
    """Return what each weight meets at each output pixel, (h, w, in, B, H′, W′), without a copy but for the padding."""
    frame = functional.pad(x.contiguous(), (padding[1], padding[1], padding[0], padding[0]))
    batch, channels, rows, columns = frame.shape
    image, plane, row, pixel = frame.stride()
    size = (rows - height) // stride[0] + 1, (columns - width) // stride[1] + 1
    return frame.as_strided(
        (height, width, channels, batch, *size), (row, pixel, plane, image, stride[0] * row, stride[1] * pixel)
    )
