"""Features: what a frozen denoiser sees in clean images that are lightly noised; the times of an image in one batch.

Law: features depend on the images, the times and the seeds alone; nothing learns, and the denoiser is as it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from diffloom.condition import Tap
from diffloom.denoiser import Denoiser
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.system import System

Spread = Literal["exact", "between"]


def chosen(denoiser: Denoiser, names: Sequence[str] | None) -> tuple[Tap, ...]:
    """Return the taps to read, coarsest first.

    By default the first of the way up (`up.N`) at each stride, which is what the paper reads; without a way up, the
    last tap at each stride.

    Raises:
        IncompatibleParts: The denoiser has no tap, or none of such a name, or two chosen ones have one stride.
    """
    by_name = {tap.name: tap for tap in denoiser.taps}
    if names is None:
        up = [tap for tap in denoiser.taps if tap.name.startswith("up.")]
        rest = {tap.stride: tap for tap in (reversed(up) if up else denoiser.taps)}
        found = list(rest.values())
    else:
        found = [by_name[name] for name in names if name in by_name]
    unknown = [name for name in names or () if name not in by_name]
    found.sort(key=lambda tap: -tap.stride)
    if not found or unknown or any(a.stride == b.stride for a, b in pairwise(found)):
        raise IncompatibleParts(
            f"the denoiser publishes no tap '{unknown[0]}'"
            if unknown
            else "the taps make no levels of one stride each",
            where="task.taps",
            expected="one tap of each stride, among " + ", ".join(by_name),
            got=", ".join(names or ()) or "no tap",
        )
    return tuple(found)


def times(noise: Noise, steps: Sequence[int], spread: Spread) -> Tensor:
    """Return the times of each item, (B, len(steps)).

    Args:
        noise: One stream per item.
        steps: Times, 0-based.
        spread: `exact` takes these; `between` draws each between itself and the time before, evenly in log-SNR.
    """
    exact = torch.tensor(list(steps)).expand(len(noise), -1)
    return exact if spread == "exact" else exact - noise.uniform(exact.double(), "times")


def extract(system: System, images: Tensor, read: Sequence[str], t: Tensor, noise: Noise) -> dict[str, Tensor]:
    """Return the maps of the taps `read`, (B, times · channels, h, w) each, of all times in one pass.

    Args:
        system: With the denoiser and its schedule.
        images: Clean, (B, C, H, W) in [−1, 1]; their sides must divide by the denoiser's strides.
        read: Names of taps.
        t: Times of each item, (B, N).
        noise: One stream per item.
    """
    denoiser, count = system.denoiser, t.shape[1]
    eps = torch.stack([noise.normal(images, "features", n) for n in range(count)], 1).flatten(0, 1)
    x0 = images.repeat_interleave(count, 0)
    levels = t.flatten().to(images.device)
    with torch.no_grad(), _at_rest(denoiser):
        maps = system.features(system.schedule.diffuse(x0, levels, eps), levels, {}, read)
    return {name: values.reshape(len(images), -1, *values.shape[2:]) for name, values in maps.items()}


@contextmanager
def _at_rest(denoiser: Denoiser) -> Iterator[None]:
    """Within the context the denoiser is in evaluation mode."""
    training = denoiser.training
    if training:
        denoiser.eval()
    try:
        yield
    finally:
        if training:
            denoiser.train()


def padded(images: Tensor, multiple: int) -> Tensor:
    """Return images (B, C, H, W) grown below and to the right to multiples, mirrored as far as there is something."""
    height, width = images.shape[-2:]
    below, right = -height % multiple, -width % multiple
    while below or right:
        step = (min(right, images.shape[-1] - 1), min(below, images.shape[-2] - 1))
        mode = "reflect" if any(step) else "replicate"
        step = step if any(step) else (right, below)
        images = functional.pad(images, (0, step[0], 0, step[1]), mode=mode)
        right, below = right - step[0], below - step[1]
    return images
