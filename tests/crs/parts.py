"""A small network with everything in it, and what is controlled."""

from typing import Any

import torch
from torch import Tensor, nn

from diffloom import Autoencoder, Space
from diffloom.condition import Condition
from diffloom.testing.standins import PlainAutoencoder
from diffloom_crs.local_controls import LocalControls
from diffloom_unet import UNet

SPACE = Space(2, (8, 8))
STRIDE = 4
KEYS = ("mlsd", "hed", "sketch", "road", "depth", "segmentation")
SD1: dict[str, Any] = {
    "embedding": "adm",
    "padding": "symmetric",
    "eps": 1e-5,
    "vector": 1280,
    "channels": 320,
    "multipliers": (1, 2, 4, 4),
    "attention": (64, 32, 16),
    "heads": 8,
    "context": 768,
}


def shaken(net: nn.Module, size: float = 0.1, seed: int = 0) -> Any:
    """Return the network with nothing left at 0, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return net


def network(**changes: Any) -> UNet:
    torch.manual_seed(0)
    small = {"channels": 16, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "context": 6, **changes}
    net: UNet = shaken(UNet(space=SPACE, **small)).eval()
    return net


def latents(channels: int = 2, stride: int = STRIDE) -> Autoencoder:
    """Return an autoencoder of which only the stride counts."""
    made = PlainAutoencoder(channels=channels)
    made.stride = stride
    return made


def controls(net: UNet, **changes: Any) -> LocalControls:
    torch.manual_seed(1)
    small = {"maps": {key: {"channels": 1} for key in KEYS}, "widths": (8, 12), "narrow": (4, 6, 8), **changes}
    return LocalControls(denoiser=net, autoencoder=latents(), space=SPACE, **small).eval()


def maps(count: int = 2, keys: tuple[str, ...] = KEYS, channels: int = 1, side: int = 32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {key: torch.rand(count, channels, side, side, generator=generator) for key in keys}


def told(count: int = 2, seed: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    return Condition(
        context=torch.randn(count, 5, 6, generator=generator), vector=torch.randn(count, 64, generator=generator)
    )


def x_t(count: int = 2) -> Tensor:
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(5))


T = torch.tensor(400.0)
