"""Small parts, and what they are compared with."""

from typing import Any

import torch
from torch import Tensor

from diffloom.conditioner import Conditioner
from diffloom.space import Space
from diffloom.testing.standins import PlainAutoencoder
from diffloom.vision_compat import ensure_torchvision
from diffloom_controlnet import ControlNet
from diffloom_unet import UNet
from tests.unet.parity import LATENT, scramble

SPACE = Space(4, (16, 16), low=None, high=None)
SMALL: dict[str, Any] = {
    **LATENT,
    "channels": 16,
    "multipliers": (1, 2),
    "blocks": 2,
    "attention": (8,),
    "heads": 2,
    "context": 12,
    "groups": 8,
}


class Halving(PlainAutoencoder):
    """Stands for an autoencoder whose latents are smaller than images."""

    bounded = False

    def __init__(self, stride: int = 8) -> None:
        super().__init__(channels=4)
        self.stride, self.image_channels = stride, 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def hints(count: int, side: int = 128, seed: int = 5, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def base(**config: Any) -> UNet:
    """Return a small frozen U-Net none of whose weights is 0."""
    return scramble(UNet(space=SPACE, **{**SMALL, **config})).requires_grad_(False).eval()


def control(net: UNet, stride: int = 8, **config: Any) -> ControlNet:
    return ControlNet(denoiser=net, autoencoder=Halving(stride), **config).eval()


def trained(part: Conditioner, seed: int = 1) -> Any:
    """Return a conditioner none of whose weights is 0."""
    return scramble(part, seed).eval()


def theirs(part: Conditioner, name: str = "diffusers") -> Any:
    """Return diffusers' model with the same weights."""
    ensure_torchvision()
    import diffusers

    layout = next(layout for layout in part.layouts() if layout.name == name)
    config = dict(layout.config)
    model: Any = getattr(diffusers, config.pop("_class_name"))(**config)
    model.load_state_dict(layout.write(part.state_dict()))
    return model.eval()
