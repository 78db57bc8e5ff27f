"""Decoding latents against diffusers on the same weights: `python -m tests.benchmarks.autoencoder [--side 32]`.

Both run in the same process, round after round in turn, on one thread, by that thread's CPU time; the medians count,
after a warm-up. diffusers' AutoencoderKL runs as it comes and in channels_last; the faster of the two is compared.
"""

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median

import torch

from diffloom.space import Space
from diffloom_ldm.autoencoders.kl import KL
from tests.ldm.autoencoders.parity import apart, scramble, twin

say = print


def main() -> None:
    """Print CPU seconds of each side, their ratio, and how far outputs are apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=32, help="of the latents: 64 for images of 512 pixels")
    parser.add_argument("--channels", type=int, default=128, help="width: 128 is Stable Diffusion's")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ours = KL(space=Space(3, (8 * asked.side, 8 * asked.side)), channels=asked.channels, scale=1.0).eval()
    scramble(ours)
    ours = ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types it so
    theirs = twin(ours)
    last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    z = torch.randn(1, 4, asked.side, asked.side)
    sides: dict[str, Callable[[], torch.Tensor]] = {
        "diffloom": lambda: ours.decode(z),
        "diffusers": lambda: theirs.decode(z).sample,
        "diffusers channels_last": lambda: last.decode(z.contiguous(memory_format=torch.channels_last)).sample,
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    outputs = {}
    with torch.inference_mode():
        for turn in range(asked.rounds + 1):
            for name, side in sides.items():
                begun = time.thread_time()
                outputs[name] = side()
                if turn:
                    seconds[name].append(time.thread_time() - begun)
    medians = {name: median(found) for name, found in seconds.items()}
    for name, value in medians.items():
        say(f"{name:26} {value:8.2f} s   ×{value / medians['diffloom']:.2f}")
    say(f"apart by {apart(outputs['diffloom'], outputs['diffusers']):.1e} of the largest value")


if __name__ == "__main__":
    main()
