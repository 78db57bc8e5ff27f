"""Residual blocks that know the time."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom_nets.conv import Conv2d, xavier, zero
from diffloom_nets.resample import Resample, resampled
from diffloom_nets.taps import Taps


def group_count(channels: int, most: int = 32) -> int:
    """Return the largest divisor of `channels` up to `most` that leaves two channels to a group, or 1.

    32 for 128, 24 for 48, 16 for 32, 1 for 37. A group of one channel would wipe out whatever is added to the
    channel as a whole: the time.
    """
    return max((n for n in range(1, min(channels // 2, most) + 1) if channels % n == 0), default=1)


class GroupNorm(nn.GroupNorm):
    """Group normalisation, optionally scaled and shifted once more.

    Args:
        channels: Of the map.
        groups: Most groups; see `group_count`.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, *, groups: int = 32, eps: float = 1e-6) -> None:
        super().__init__(group_count(channels, groups), channels, eps=eps)

    def forward(self, h: Tensor, modulation: Tensor | None = None) -> Tensor:
        """Return (1 + scale) ⊙ norm(h) + shift.

        Args:
            h: (B, C, H, W).
            modulation: [scale | shift], (B, 2C) or (1, 2C), or `None` for neither.
        """
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if torch.is_grad_enabled() and weight.requires_grad and not h.requires_grad:
            h = h.detach().requires_grad_()  # torch 2.13 crashes in channels_last where only the weights want gradients
        if modulation is not None and modulation.shape[0] == 1:
            scale, shift = (1 + modulation[0, : self.num_channels]), modulation[0, self.num_channels :]
            weight, bias = weight * scale, torch.addcmul(shift, bias, scale)
            modulation = None
        h = functional.group_norm(h, self.num_groups, weight, bias, self.eps)
        return h if modulation is None else modulated(h, modulation)


def modulated(h: Tensor, modulation: Tensor) -> Tensor:
    """Return (1 + scale) ⊙ h + shift for a map (B, C, H, W) and [scale | shift] (B, 2C) or (1, 2C)."""
    scale, shift = modulation[:, :, None, None].chunk(2, 1)
    return torch.addcmul(shift, h, 1 + scale)


class ResBlock(nn.Module):
    """skip(x) + conv(silu(norm(conv(silu(norm(x))) + time))), the last convolution zero at the start.

    Time comes in between as a shift, or as scale and shift of the second normalisation (Nichol & Dhariwal
    2021). The branch before its skip is added is the tap `res.NAME`. The outputs of the normalisations are the taps
    `norm.NAME.0` and `norm.NAME.1`: an edit there takes the map before the normalisation and stands in its place.

    Args:
        channels: Of the input.
        out: Of the output; a 1×1 convolution carries the skip where they differ.
        name: Of the block, after which its taps are called.
        dropout: Probability, before the last convolution.
        scale_shift: Whether time scales as well as shifts.
        groups: Most groups of the normalisations.
        eps: Of the normalisations.
        resample: Whether branch and skip are halved by averaging, or doubled by repeating, before the first
            convolution (Song et al. 2021, Dhariwal & Nichol 2021); `None` for neither.

    Attributes:
        time_width: Width of what `TimeProjection` must give this block.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        *,
        name: str = "block",
        dropout: float = 0.0,
        scale_shift: bool = False,
        groups: int = 32,
        eps: float = 1e-6,
        resample: Resample | None = None,
    ) -> None:
        super().__init__()
        self.tap, self.norm_taps = f"res.{name}", (f"norm.{name}.0", f"norm.{name}.1")
        self.resample = resample
        self.out_channels = out
        self.scale_shift = scale_shift
        self.time_width = 2 * out if scale_shift else out
        self.norm1 = GroupNorm(channels, groups=groups, eps=eps)
        self.conv1 = xavier(Conv2d(channels, out, 3, padding=1))
        self.norm2 = GroupNorm(out, groups=groups, eps=eps)
        self.dropout = dropout
        self.conv2 = zero(Conv2d(out, out, 3, padding=1))
        self.skip = xavier(Conv2d(channels, out, 1)) if channels != out else None

    def forward(self, x: Tensor, time: Tensor, taps: Taps) -> Tensor:
        """Return the block's output.

        Args:
            x: (B, channels, H, W).
            time: (B, time_width), or (1, time_width) for the whole batch.
            taps: The edits and readers of this pass.

        Returns:
            (B, out, H, W); the sides are half or twice as long where the block resamples.
        """
        h = self._normalised(0, x, taps)
        halves, doubles = self.resample == "halve", self.resample == "double"
        h = resampled(functional.silu(h), "halve") if halves else h
        h = self.conv1(h, None if self.scale_shift else time, silu=not halves, double=doubles)
        h = self._normalised(1, h, taps, time if self.scale_shift else None)
        if self.training and self.dropout:
            h = self.conv2(functional.dropout(functional.silu(h), self.dropout))
        else:
            h = self.conv2(h, silu=True)
        h = taps(self.tap, h)
        x = x if self.resample is None else resampled(x, self.resample)
        x = x if self.skip is None else self.skip(x)
        if torch.is_grad_enabled() or taps.touches(self.tap) or h.dtype != x.dtype:
            return h + x
        return h.add_(x)

    def _normalised(self, index: int, h: Tensor, taps: Taps, modulation: Tensor | None = None) -> Tensor:
        """Return the map (B, C, H, W) after a normalisation, or the edit in its place, and after time's modulation."""
        name, norm = self.norm_taps[index], (self.norm1, self.norm2)[index]
        if taps.edited(name):
            h = taps.edit(name, h)
            h = h if modulation is None else modulated(h, modulation)
        else:
            h = norm(h, modulation)
        return taps.keep(name, h).clone() if taps.touches(name) else h  # what comes next may write over it
