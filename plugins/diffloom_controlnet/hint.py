"""Hints: pictures in [0, 1] that say what an image shall show where, and their features in the size of latents."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from diffloom.conditioner import Batch
from diffloom.errors import DataError, IncompatibleParts
from diffloom_nets import Conv2d, zero

WIDTHS = (16, 32, 96, 256)
"""Of the published hint encoder, for latents 8 times smaller; more halvings repeat the last, fewer leave it out."""

_ABSENT = -1.0  # a masked pixel of an inpainting hint


def hint_of(batch: Batch, key: str, channels: int, stride: int) -> Tensor:
    """Return a batch's hint with the given number of channels.

    Args:
        batch: With the hint (B, C, H, W) in [0, 1], or −1 where a pixel is masked.
        key: Where.
        channels: How many are wanted; one is repeated.
        stride: Must divide its sides.

    Raises:
        DataError: It is no such picture. Values are looked at on the CPU alone, where that costs no waiting.
    """
    hint: Tensor = batch[key]
    shape = tuple(hint.shape)
    if len(shape) != 4 or shape[1] not in (1, channels) or any(side % stride for side in shape[2:]):
        raise DataError(
            "the hint does not fit",
            where=key,
            expected=f"(B, {channels}, H, W), or one channel, with sides that are multiples of {stride}",
            got=str(shape),
            remedy="set `channels` to the hint's, or crop or pad image and hint together",
        )
    hint = hint.to(torch.promote_types(hint.dtype, torch.float16) if not hint.is_floating_point() else hint.dtype)
    if hint.device.type == "cpu" and not bool((((hint >= 0) & (hint <= 1)) | (hint == _ABSENT)).all()):
        low, high = (float(end) for end in hint.aminmax())
        raise DataError(
            "a hint has values out of range",
            where=key,
            expected="0 … 1, or −1 where a pixel is masked",
            got=f"{low:.3g} … {high:.3g}",
            remedy="hints are not brought to [−1, 1] as images are; the transforms that make them leave them in [0, 1]",
        )
    return hint.expand(-1, channels, -1, -1)


class HintEncoder(nn.Module):
    """3×3 convolutions with SiLU between, every second with stride 2; the last is zero at the start.

    C → 16, 16 → 16, 16 → 32 (halved), 32 → 32, 32 → 96 (halved), 96 → 96, 96 → 256 (halved), 256 → out for stride 8.

    Args:
        channels: Of the hint.
        out: Of the features.
        stride: How many times smaller the features are, a power of two.
        widths: One more than there are halvings; `WIDTHS` by default.

    Raises:
        IncompatibleParts: The stride is no power of two, or the widths are too few or too many.
    """

    def __init__(self, channels: int, out: int, *, stride: int, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        halvings = stride.bit_length() - 1
        widths = [WIDTHS[min(i, len(WIDTHS) - 1)] for i in range(halvings + 1)] if widths is None else list(widths)
        if stride != 1 << halvings or len(widths) != halvings + 1:
            raise IncompatibleParts(
                "the hint encoder does not lead from pixels to what is diffused",
                where="controlnet.widths",
                expected=f"{halvings + 1} widths for a stride of {stride}, a power of two",
                got=f"{len(widths)} widths",
                remedy="leave `widths` out",
            )
        self.widths = tuple(widths)
        self.enter = Conv2d(channels, widths[0], 3, padding=1)
        blocks: list[Conv2d] = []
        for before, after in pairwise(widths):
            blocks += [Conv2d(before, before, 3, padding=1), Conv2d(before, after, 3, stride=2, padding=1)]
        self.blocks = nn.ModuleList(blocks)
        self.leave = zero(Conv2d(widths[-1], out, 3, padding=1))

    def forward(self, hint: Tensor) -> Tensor:
        """Return features (B, out, H/stride, W/stride) of hints (B, channels, H, W)."""
        h = self.enter(hint.to(self.enter.weight.dtype, memory_format=torch.channels_last))
        for block in (*self.blocks, self.leave):
            h = block(h, silu=True)
        return h  # type: ignore[no-any-return]  # a convolution's answer
