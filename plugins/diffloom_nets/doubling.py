"""The 3×3 convolution of a map whose every pixel was repeated to 2×2, without repeating any; for inference on a CPU.

Along one side, with taps w₀, w₁, w₂ and s = w₀ + w₁ + w₂,

    y₂ᵢ   = w₀ xᵢ₋₁ + (w₁ + w₂) xᵢ = s xᵢ − w₀ (xᵢ − xᵢ₋₁)
    y₂ᵢ₊₁ = (w₀ + w₁) xᵢ + w₂ xᵢ₊₁ = s xᵢ + w₂ (xᵢ₊₁ − xᵢ)

so that four outputs cost 36 products per pair of channels as they stand, sixteen by the phases in the middle, and nine
by the differences on the right. Differences serve float32. In half precision each of their products would be rounded
before they are added, while a phase is rounded once, as the plain convolution is.
"""

import torch
from torch import Tensor
from torch.nn import functional

from diffloom_nets.buffers import buffer
from diffloom_nets.product import multiply

_PIECE = 2048  # pixels at a time: what lies between stays in the cache


def transform(weight: Tensor) -> Tensor:
    """Return what `convolve` wants of a weight (out, in, 3, 3), in its type, in a buffer.

    Returns:
        (3, 3, out, in) in float32: s, w₀ and w₂ along the height, and of each the same along the width.
        (2, 2, out, 2, 2, in) in half precision: the 2×2 filters of every phase.
    """
    taps = weight.detach().permute(0, 2, 3, 1)
    outputs, inputs = weight.shape[:2]
    if weight.dtype == torch.float32:
        made = buffer("filters", 3, 3, outputs, inputs)
        total = buffer("tiles", outputs, 3, inputs)
        for row, line in enumerate(_terms(taps, total)):
            _, made[row, 1], made[row, 2] = _terms(line, made[row, 0])
    else:
        made = buffer("filters", 2, 2, outputs, 2, 2, inputs, dtype=weight.dtype)
        for row, line in enumerate(_pairs(taps)):
            for column, part in enumerate(_pairs(line)):
                made[row // 2, column // 2, :, row % 2, column % 2] = part
    return made


def convolve(x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution, padded by one, of a doubled map; not differentiable.

    Args:
        x: (B, in, H, W), the map as it is, float32, bfloat16 or float16, best in channels_last.
        filters: What `transform` makes, in the type of x.
        bias: (out,) in the type of x, or `None`.

    Returns:
        (B, out, 2H, 2W), channels_last.
    """
    batch, _, height, width = x.shape
    write = _by_differences if x.dtype == torch.float32 else _by_phases
    out = x.new_empty(batch, height, 2, width, 2, filters.shape[2])
    x = x.permute(0, 2, 3, 1)
    step = max(1, _PIECE // (batch * width))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        frame = functional.pad(x[:, max(top - 1, 0) : bottom + 1], (0, 0, 1, 1, int(top == 0), int(bottom == height)))
        write(out[:, top:bottom], frame, filters, bias)
    return out.view(batch, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def _terms(taps: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return s, w₀ and w₂ of taps (out, 3, …), s in the given memory."""
    first, middle, last = taps.unbind(1)
    return torch.add(first, middle, out=total).add_(last), first, last


def _pairs(taps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the two taps of even outputs, and the two of odd ones, of taps (out, 3, …)."""
    first, middle, last = taps.unbind(1)
    return first, middle + last, first + middle, last


def _by_differences(out: Tensor, frame: Tensor, filters: Tensor, bias: Tensor | None) -> None:
    """Write the outputs (B, H, 2, W, 2, out) of the inside of a frame (B, H + 2, W + 2, in)."""
    height, width = out.shape[1], out.shape[3]
    inside = frame[:, 1:-1]
    down, across = frame[:, 1:] - frame[:, :-1], inside[:, :, 1:] - inside[:, :, :-1]
    both = down[:, :, 1:] - down[:, :, :-1]
    here, down = inside[:, :, 1:-1].contiguous(), down[:, :, 1:-1].contiguous()
    signs = (-1, 1)  # of differences, for even and for odd outputs
    rows = [multiply(down, filters[1 + a, 0], None)[:, a : a + height] for a in (0, 1)]
    plain = multiply(here, filters[0, 0], bias)
    for b in (0, 1):
        column = plain.add(multiply(across, filters[0, 1 + b], None)[:, :, b : b + width], alpha=signs[b])
        for a in (0, 1):
            corner = multiply(both, filters[1 + a, 1 + b], None)[:, a : a + height, b : b + width]
            edges = column.add(rows[a], alpha=signs[a])
            torch.add(edges, corner, alpha=signs[a] * signs[b], out=out[:, :, a, :, b])


def _by_phases(out: Tensor, frame: Tensor, filters: Tensor, bias: Tensor | None) -> None:
    """Write what `_by_differences` does, each phase as a convolution with a window of 2×2."""
    height, width = out.shape[1], out.shape[3]
    frame = frame.permute(0, 3, 1, 2)
    for a in (0, 1):
        for b in (0, 1):
            seen = frame[:, :, a : a + height + 1, b : b + width + 1]
            out[:, :, a, :, b] = functional.conv2d(seen, filters[a, b].permute(0, 3, 1, 2), bias).permute(0, 2, 3, 1)
