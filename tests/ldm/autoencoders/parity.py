"""diffusers' autoencoders with the weights of ours: the oracle of the tests, the opponent of the benchmark."""

from typing import Any

import torch
from torch import Tensor, nn

from diffloom.autoencoder import Autoencoder
from diffloom.layout import Layout
from diffloom.vision_compat import ensure_torchvision


def scramble(net: nn.Module, seed: int = 0) -> None:
    """Give every parameter random numbers of unit gain, so that no zero layer hides an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 1
            draw = torch.randn(parameter.shape, generator=generator)
            centre = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.copy_(centre + draw * (fan**-0.5 if parameter.dim() > 1 else 0.1))


def layout(part: Autoencoder, name: str) -> Layout:
    """Return the layout of that name, the first where several have it."""
    return next(found for found in part.layouts() if found.name == name)


def twin(part: Autoencoder) -> Any:
    """Return diffusers' network as our layout describes it, with our weights, in evaluation mode."""
    ensure_torchvision()
    import diffusers

    told = dict(layout(part, "diffusers").config)
    theirs = getattr(diffusers, told.pop("_class_name"))(**told)
    theirs.load_state_dict(layout(part, "diffusers").write(part.state_dict()))
    return theirs.eval()


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
