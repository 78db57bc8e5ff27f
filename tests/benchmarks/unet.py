"""The U-Net of DDPM against diffusers' on the same weights: `python -m tests.benchmarks.unet [--quick] [--threads 1]`.

Both run in the same process, round after round in turn, so that whatever else the machine does meets both alike;
medians count, after a warm-up. With one thread the clock is that thread's CPU time, which other work on the cores
stretches least. diffusers runs as it comes and in channels_last; the faster of the two is compared.
Memory is the peak of a process of its own for each side, its imports included.
"""

import argparse
import copy
import gc
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from tests.unet.parity import layout_of, pair, twin

CIFAR: dict[str, Any] = {"channels": 128, "attention": (16,)}
say = print
Sides = dict[str, Callable[[], object]]


def contenders(dtype: torch.dtype = torch.float32) -> tuple[Any, dict[str, Any]]:
    """Return our network, and theirs in the layouts it may run in."""
    ours, theirs = pair(32, **CIFAR)
    theirs = theirs.to(dtype)
    last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    return ours.to(dtype), {"diffusers": theirs, "diffusers channels_last": last}


def without_gradients(side: Callable[[], object]) -> Callable[[], object]:
    """Return the side, run in inference mode."""

    def run() -> object:
        with torch.inference_mode():
            return side()

    return run


def laid_out(x: Tensor, name: str) -> Tensor:
    """Return x as the side of that name is best given it."""
    return x.contiguous(memory_format=torch.channels_last) if "last" in name else x


def forward(batch: int, dtype: torch.dtype) -> Sides:
    """One pass of the network at one time."""
    ours, theirs = contenders(dtype)
    x, t = torch.randn(batch, 3, 32, 32, dtype=dtype), torch.tensor(500)
    sides: Sides = {"diffloom": lambda: ours(x, t)}
    for name, net in theirs.items():
        sides[name] = partial(net, laid_out(x, name), t)
    return {name: without_gradients(side) for name, side in sides.items()}


def training(batch: int) -> Sides:
    """Forward, backward and Adam."""
    ours, theirs = contenders()
    x, t, target = torch.randn(batch, 3, 32, 32), torch.randint(1000, (batch,)), torch.randn(batch, 3, 32, 32)

    def stepper(net: Any, answer: Callable[[], Tensor]) -> Callable[[], object]:
        net.train()
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-6)

        def step() -> None:
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(torch.nn.functional.mse_loss(answer(), target))
            optimiser.step()

        return step

    def answer(net: Any, x: Tensor) -> Tensor:
        answered: Tensor = net(x, t).sample
        return answered

    sides: Sides = {"diffloom": stepper(ours, partial(ours, x, t))}
    for name, net in theirs.items():
        sides[name] = stepper(net, partial(answer, net, laid_out(x, name)))
    return sides


def ddim(batch: int, steps: int) -> Sides:
    """Sampling from end to end with DDIM, η = 0."""
    from diffusers import DDIMScheduler

    from diffloom.prediction import Denoised
    from diffloom_ddim.sampler import DDIM
    from diffloom_ddpm.schedules import Linear

    ours, theirs = contenders()
    noise, schedule = torch.randn(batch, 3, 32, 32), Linear()
    sampler = DDIM(steps=steps, spacing="leading", clip=1.0)

    def model(x_t: Tensor, t: Tensor) -> Denoised:
        return Denoised.from_output("eps", ours(x_t, t), x_t, schedule.alpha(t), schedule.sigma(t))

    def loop(net: Any, x: Tensor) -> Tensor:
        scheduler = DDIMScheduler(set_alpha_to_one=True)
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t).sample, t, x).prev_sample
        return x

    sides: Sides = {"diffloom": lambda: sampler.sample(model, schedule, noise, None)}
    for name, net in theirs.items():
        sides[name] = partial(loop, net, laid_out(noise, name))
    return {name: without_gradients(side) for name, side in sides.items()}


def seconds(sides: Sides, rounds: int) -> dict[str, float]:
    """Return the median time of each side, all of them run in turn."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            start = clock()
            side()
            if number:  # the first round warms up
                times[name].append(clock() - start)
    return {name: median(values) for name, values in times.items()}


def row(title: str, sides: Sides, rounds: int) -> str:
    """Return a line of the table."""
    found = seconds(sides, rounds)
    ours, best = found.pop("diffloom"), min(found, key=lambda name: found[name])
    return f"| {title} | {ours * 1e3:.0f} ms | {found[best] * 1e3:.0f} ms | {found[best] / ours:.2f}× |"


def peak(side: str, work: str, batch: int) -> float:
    """Return the peak memory in MiB of a fresh process that does some work on one side."""
    command = [sys.executable, "-m", "tests.benchmarks.unet", "--alone", side, work, str(batch)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def alone(side: str, work: str, batch: int) -> None:
    """Do some work on one side and print the peak memory of this process in MiB."""
    from diffloom.space import Space
    from diffloom_unet import UNet

    if side == "diffloom":
        net: Any = UNet(space=Space(3, (32, 32)), **CIFAR)
    else:
        with torch.device("meta"):
            pattern = UNet(space=Space(3, (32, 32)), **CIFAR)
        net = twin(layout_of(pattern))
    x, t = torch.randn(batch, 3, 32, 32), torch.full((batch,), 500)
    net.train(work == "training")
    with torch.inference_mode(work != "training"):
        for _ in range(2):
            out = net(x, t)
            if work == "training":
                (out if side == "diffloom" else out.sample).square().mean().backward()
    say(high_water())  # read by `peak`


def high_water() -> float:
    """Return the peak of this process's own memory in MiB; getrusage's would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def memory_row(work: str, batch: int) -> str:
    """Return a line of the table."""
    ours, theirs = (peak(side, work, batch) for side in ("diffloom", "diffusers"))
    return f"| peak memory, {work}, batch {batch} | {ours:.0f} MiB | {theirs:.0f} MiB | {theirs / ours:.2f}× |"


def machine() -> str:
    """Return what this ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller batches")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="1 where other work shares the cores")
    parser.add_argument("--alone", nargs=3, metavar=("SIDE", "WORK", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        side, work, batch = options.alone
        alone(side, work, int(batch))
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    few = 3 if options.quick else options.rounds
    say(f"CIFAR-10 U-Net of DDPM, 35,746,307 parameters; {machine()}\n")
    say("| | diffloom | diffusers, at its best | ratio |\n|---|---|---|---|")
    for batch in (1, 4) if options.quick else (1, 4, 16):
        say(row(f"forward, float32, batch {batch}", forward(batch, torch.float32), few), flush=True)
    say(row("forward, bfloat16, batch 4", forward(4, torch.bfloat16), min(few, 3)), flush=True)
    gc.collect()
    batch = 8 if options.quick else 32
    say(row(f"training step, float32, batch {batch}", training(batch), 3), flush=True)
    gc.collect()
    say(row("DDIM, 50 steps, batch 1", ddim(1, 50), 3), flush=True)
    for work in ("inference", "training"):
        say(memory_row(work, 16), flush=True)


if __name__ == "__main__":
    main()
