"""What one control costs per step, ours beside diffusers' on equal weights: `python -m tests.benchmarks.controlnet`.

The bare network and the controlled one of both libraries live in one process and run in turn, round after round;
medians count, after a warm-up, and the overhead is the difference. What is made once per sample (the hint's features,
the projected context) is made before: diffusers makes it at every step. With `--threads 1` the clock is the thread's
CPU time.
"""

import argparse
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffloom.condition import Condition
from diffloom.space import Space
from diffloom_controlnet import ControlNet
from diffloom_unet import UNet
from tests.benchmarks.stable_diffusion import TOKENS, filled
from tests.benchmarks.unet import Sides, machine, seconds, without_gradients
from tests.controlnet.parts import Halving
from tests.unet.parity import SD1, twin

SPACE = Space(4, (64, 64), low=None, high=None)
say = print


def networks(channels: int) -> tuple[UNet, ControlNet]:
    """Return a network of Stable Diffusion's shape with random weights, and a control of it that is not zero."""
    with torch.device("meta"):
        net = UNet(space=SPACE, **{**SD1, "channels": channels})
    filled(net)
    return net.requires_grad_(False), filled(ControlNet(denoiser=net, autoencoder=Halving()))


def others(net: UNet, control: ControlNet) -> tuple[Any, Any]:
    """Return diffusers' networks with the same weights."""
    found = []
    for part in (net, control):
        layout = next(layout for layout in part.layouts() if layout.name == "diffusers")
        with torch.device("meta"):
            model = twin(layout)
        model.load_state_dict(layout.write(part.state_dict()), assign=True)
        found.append(model.eval())
    return found[0], found[1]


def sides(net: UNet, control: ControlNet, dtype: torch.dtype, batch: int) -> Sides:
    """Return one step of each, bare and controlled."""
    unet, model = others(net, control)
    if dtype == torch.bfloat16:
        net, control = net.bfloat16(), control.bfloat16()
        unet, model = (part.to(torch.bfloat16, memory_format=torch.channels_last) for part in (unet, model))
    x, context = torch.randn(batch, 4, 64, 64).to(dtype), torch.randn(batch, TOKENS, SD1["context"]).to(dtype)
    hint, t = torch.rand(batch, 3, 512, 512).to(dtype), torch.tensor(500)
    with torch.inference_mode():
        told = net.prepare(Condition(context=context))
        walk = control.prepare(control.encode({"hint": hint}), told)

    def controlled() -> Tensor:
        out: Any = net(x, t, told | control(walk, x, t, told))
        return out  # type: ignore[no-any-return]  # without `read` it is a tensor

    def other() -> Tensor:
        downs, mid = model(x, t, context, hint, return_dict=False)
        found: Tensor = unet(
            x, t, context, down_block_additional_residuals=downs, mid_block_additional_residual=mid
        ).sample
        return found

    return {
        "diffloom bare": without_gradients(partial(net, x, t, told)),
        "diffusers bare": without_gradients(lambda: unet(x, t, context).sample),
        "diffloom controlled": without_gradients(controlled),
        "diffusers controlled": without_gradients(other),
    }


def row(title: str, found: Sides, rounds: int) -> str:
    """Return a line of the table; the answers of both sides are compared first."""
    results: dict[str, Any] = {name: side() for name, side in found.items() if name.endswith("controlled")}
    mine, theirs = (results[f"{name} controlled"].float() for name in ("diffloom", "diffusers"))
    apart = float((mine - theirs).abs().max() / theirs.abs().max())
    took = seconds(found, rounds)
    cells = []
    for name in ("diffloom", "diffusers"):
        bare, whole = took[f"{name} bare"], took[f"{name} controlled"]
        cells.append(f"{bare:.3f} s | {whole - bare:.3f} s ({(whole - bare) / bare:.0%})")
    return f"| {title} | {cells[0]} | {cells[1]} | {apart:.0e} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="1 where other work shares the cores")
    parser.add_argument("--channels", type=int, default=320, help="320 is Stable Diffusion 1's width")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    found = sides(*networks(options.channels), getattr(torch, options.dtype), options.batch)
    say(f"One control of a network {options.channels} wide, {options.dtype}, batch {options.batch}, {machine()}\n")
    say("| | diffloom bare | overhead | diffusers bare | overhead | largest difference |\n|---|---|---|---|---|---|")
    say(row(f"a step, width {options.channels}", found, options.rounds), flush=True)


if __name__ == "__main__":
    main()
