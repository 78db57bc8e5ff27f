"""diffusers' U-Nets with our weights: the oracle of the tests, the opponent of the benchmarks."""

from typing import Any, TypeVar

import torch
from torch import nn

from diffloom.layout import Layout
from diffloom.space import Space
from diffloom.vision_compat import ensure_torchvision
from diffloom_unet import UNet

Net = TypeVar("Net", bound=nn.Module)

LATENT: dict[str, Any] = {"embedding": "adm", "padding": "symmetric", "eps": 1e-5, "vector": 0}
SD1: dict[str, Any] = {
    **LATENT,
    "channels": 320,
    "multipliers": (1, 2, 4, 4),
    "attention": (64, 32, 16),
    "heads": 8,
    "context": 768,
}
SD2: dict[str, Any] = {**SD1, "heads": 1, "head_width": 64, "context": 1024}


def scramble(net: Net, seed: int = 0) -> Net:
    """Give every parameter random numbers, so that no zero layer hides an error, and unit scale is kept."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 1
            draw = torch.randn(parameter.shape, generator=generator)
            centre = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.copy_(centre + draw * (fan**-0.5 if parameter.dim() > 1 else 0.1))
    return net


def pair(size: int = 32, bands: int = 3, **config: Any) -> tuple[UNet, Any]:
    """Return our network and theirs, equal in every weight, both in evaluation mode."""
    ours = scramble(UNet(space=Space(bands, (size, size)), **config))
    layout = layout_of(ours)
    theirs = twin(layout)
    theirs.load_state_dict(layout.write(ours.state_dict()))
    return ours.eval(), theirs.eval()


def layout_of(net: UNet, name: str = "diffusers") -> Layout:
    """Return a layout of the network by its name."""
    return next(layout for layout in net.layouts() if layout.name == name)


def twin(layout: Layout) -> Any:
    """Return diffusers' network of a layout's configuration, with weights of its own."""
    ensure_torchvision()
    import diffusers

    kind = getattr(diffusers, layout.config["_class_name"])
    return kind.from_config(dict(layout.config))
