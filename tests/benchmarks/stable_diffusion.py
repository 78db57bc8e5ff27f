"""Stable Diffusion's U-Net against diffusers' on the same weights: `python -m tests.benchmarks.stable_diffusion`.

Both networks of 859,520,964 parameters live in one process and run in turn, round after round, so that whatever else
the machine does meets both alike; medians count, after a warm-up. With `--threads 1` the clock is the thread's CPU
time. diffusers runs as it comes in float32, and in channels_last in bfloat16. Memory is the peak of a process of its
own for each side. The peaks of products and convolutions are measured beside them, to say how far there is to go.
"""

import argparse
import gc
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.space import Space
from diffloom.system import Conditioning, Plan, System
from diffloom_ddim.sampler import DDIM
from diffloom_ddpm.generate import Generate
from diffloom_ddpm.identity import Identity
from diffloom_ddpm.schedules import ScaledLinear
from diffloom_unet import UNet
from tests.benchmarks.unet import Sides, high_water, machine, seconds, without_gradients
from tests.unet.parity import SD1, layout_of, twin

SPACE = Space(4, (64, 64), low=None, high=None)
TOKENS = 77
GUIDANCE = 7.5
say = print


class Told(Conditioner):
    """Tokens of a batch as they are; zeros say nothing."""

    gives = Ports(context=SD1["context"])

    def encode(self, batch: Batch) -> Condition:
        """Return the tokens of the batch."""
        return Condition(context=batch["context"])

    def null(self, code: Condition) -> Condition:
        """Return as many zeros."""
        context = code.context
        return Condition(context=None if context is None else torch.zeros_like(context))


def ours() -> UNet:
    """Return our network with random weights, ready for inference."""
    with torch.device("meta"):
        net = UNet(space=SPACE, **SD1)
    filled(net)
    return net


def filled(net: Any) -> Any:
    """Return a network of the meta device with random weights that keep the scale of what passes."""
    net = net.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.normal_(float(parameter.dim() == 1 and name.endswith("weight")), scale, generator=generator)
    return net


def theirs(net: UNet | None = None) -> Any:
    """Return diffusers' network, with the weights of ours where it is given."""
    with torch.device("meta"):
        layout = layout_of(net or UNet(space=SPACE, **SD1))
        other = twin(layout)
    if net is None:
        return filled(other)
    other.load_state_dict(layout.write(net.state_dict()), assign=True)
    return other.eval()


def forward(net: UNet, other: Any, dtype: torch.dtype, batch: int = 1) -> Sides:
    """One pass at one time; the context is prepared, as it is once in a whole sampling."""
    x, context, t = torch.randn(batch, 4, 64, 64), torch.randn(batch, TOKENS, SD1["context"]), torch.tensor(500)
    x, context = x.to(dtype), context.to(dtype)
    with torch.inference_mode():
        told = net.prepare(Condition(context=context))
    last = x.contiguous(memory_format=torch.channels_last) if dtype == torch.bfloat16 else x
    return {
        "diffloom": without_gradients(partial(net, x, t, told)),
        "diffusers": without_gradients(lambda: other(last, t, context).sample),
    }


def guided(net: UNet, other: Any, steps: int) -> Sides:
    """DDIM with guidance from end to end, the context's projection included."""
    from diffusers import DDIMScheduler

    noise, context = torch.randn(1, 4, 64, 64), torch.randn(1, TOKENS, SD1["context"])
    system = System(
        Plan(SPACE, conditioning={"text": Conditioning(guidance=GUIDANCE)}),
        autoencoder=Identity(space=SPACE),
        task=Generate(),
        schedule=ScaledLinear(),
        denoiser=net,
        conditioners={"text": Told()},
    ).eval()
    sampler = DDIM(steps=steps, spacing="leading")

    def loop() -> Tensor:
        scheduler = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True
        )
        scheduler.set_timesteps(steps)
        x, both = noise, torch.cat([torch.zeros_like(context), context])
        for t in scheduler.timesteps:
            null, full = other(torch.cat([x, x]), t, both).sample.chunk(2)
            x = scheduler.step(null + GUIDANCE * (full - null), t, x).prev_sample
        return x

    def walk() -> Tensor:
        return sampler.sample(system.model({"context": context}), system.schedule, noise, None)

    return {"diffloom": without_gradients(walk), "diffusers": without_gradients(loop)}


def row(title: str, sides: Sides, rounds: int) -> str:
    """Return a line of the table, with how far the outputs are apart."""
    results: dict[str, Any] = {}

    def kept(name: str, side: Callable[[], object]) -> object:
        results[name] = side()
        return None

    found = seconds({name: partial(kept, name, side) for name, side in sides.items()}, rounds)
    a, b = results["diffloom"].float(), results["diffusers"].float()
    apart = float((a - b).abs().max() / b.abs().max())
    mine, other = found["diffloom"], found["diffusers"]
    return f"| {title} | {mine:.2f} s | {other:.2f} s | {other / mine:.2f}× | {apart:.0e} |"


def peaks() -> str:
    """Return what this machine reaches in a large product, and in a large convolution in oneDNN's own layout."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    x = torch.randn(4, 512, 32, 32).contiguous(memory_format=torch.channels_last)
    conv: Any = torch.nn.Conv2d(512, 512, 3, padding=1)
    conv = conv.to(memory_format=torch.channels_last)
    sides: Sides = {"product": lambda: a @ b, "convolution": lambda: conv(x)}
    found = seconds({name: without_gradients(side) for name, side in sides.items()}, 7)
    work = {"product": 2 * 2048**3, "convolution": 2 * 4 * 32 * 32 * 512 * 512 * 9}
    return ", ".join(f"{name} {work[name] / found[name] / 1e9:.0f} GFLOP/s" for name in work)


def operations() -> float:
    """Return the GFLOP of one pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad():
        ghost = UNet(space=SPACE, **SD1).eval()
        x, told = torch.empty(1, 4, 64, 64), Condition(context=torch.empty(1, TOKENS, SD1["context"]))
        with FlopCounterMode(display=False) as counter:
            ghost(x, torch.tensor(0.0), told)
    return float(counter.get_total_flops()) / 1e9


def profiled(side: Callable[[], object]) -> str:
    """Return where the time of one call goes."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        side()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return "\n".join(f"| {e.key} | {e.self_cpu_time_total / total:.1%} | {e.count} |" for e in events[:12])


def alone(side: str) -> None:
    """Run one side twice and print the peak memory of this process in MiB."""
    net = ours() if side == "diffloom" else theirs()
    x, context = torch.randn(1, 4, 64, 64), torch.randn(1, TOKENS, SD1["context"])
    with torch.inference_mode():
        for _ in range(2):
            if side == "diffloom":
                net(x, torch.tensor(500), net.prepare(Condition(context=context)))
            else:
                net(x, 500, context)
    say(high_water())  # read by `memory_row`


def memory_row() -> str:
    """Return a line of the table."""
    found = []
    for side in ("diffloom", "diffusers"):
        command = [sys.executable, "-m", "tests.benchmarks.stable_diffusion", "--alone", side]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        found.append(float(done.stdout.split()[-1]))
    return f"| peak memory, float32 | {found[0]:.0f} MiB | {found[1]:.0f} MiB | {found[1] / found[0]:.2f}× | |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of the guided loop; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=0, help="1 where other work shares the cores")
    parser.add_argument("--only", choices=["float32", "loop", "bfloat16", "memory", "profile"])
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.alone:
        alone(options.alone)
        return
    chosen = [options.only] if options.only else ["float32", "profile", "loop", "bfloat16", "memory"]
    say(f"Stable Diffusion 1's U-Net, {machine()}; {peaks()}\n")
    say("| | diffloom | diffusers | ratio | largest difference |\n|---|---|---|---|---|")
    if "memory" in chosen:
        say(memory_row(), flush=True)
    if chosen == ["memory"]:
        return
    net = ours()
    other = theirs(net)
    if "float32" in chosen:
        say(row("forward, float32", forward(net, other, torch.float32), options.rounds), flush=True)
    if "loop" in chosen and options.steps:
        say(row(f"guided DDIM, {options.steps} steps", guided(net, other, options.steps), 1), flush=True)
    if "profile" in chosen:
        sides = forward(net, other, torch.float32)
        sides["diffloom"]()
        say(f"\n{operations():.0f} GFLOP a pass; where its time goes:\n\n{profiled(sides['diffloom'])}\n", flush=True)
    gc.collect()
    if "bfloat16" in chosen:
        net, other = net.bfloat16(), other.to(torch.bfloat16, memory_format=torch.channels_last)
        say(row("forward, bfloat16", forward(net, other, torch.bfloat16), min(options.rounds, 3)), flush=True)


if __name__ == "__main__":
    main()
