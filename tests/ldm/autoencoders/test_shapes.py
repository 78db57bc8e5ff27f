"""Sizes of images and latents, and how far a pixel sees."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffloom.autoencoder import ScaledAutoencoder
from diffloom.errors import IncompatibleParts
from diffloom.space import Space
from diffloom_ldm.autoencoders.kl import KL
from diffloom_ldm.autoencoders.tiny import Tiny
from diffloom_ldm.autoencoders.vae import VAE


@pytest.mark.parametrize("levels", range(1, 7))
def test_strides_from_1_to_32_and_any_number_of_bands(levels: int) -> None:
    stride = 2 ** (levels - 1)
    size = (2 * stride, 3 * stride)
    part = KL(space=Space(5, size), channels=4, multipliers=(1,) * levels, blocks=1, latent=7).eval()
    with torch.no_grad():
        z = part.encode(torch.zeros(2, 5, *size)).mode()
        assert z.shape == (2, 7, 2, 3)
        assert part.decode(z).shape == (2, 5, *size)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (16, 16), (5, 5), (11, 22), (30, 45)])
def test_the_small_vae_takes_images_of_any_size(height: int, width: int) -> None:
    part = VAE(space=Space(2, (height, width)), channels=4, hidden=8, latent=3)
    with torch.no_grad():
        z = part.encode(torch.zeros(2, 2, height, width)).mode()
        assert z.shape == (2, 3, height // part.stride, width // part.stride)
        assert part.decode(z).shape == (2, 2, height, width)


def test_images_that_cannot_be_halved_twice_are_refused() -> None:
    with pytest.raises(IncompatibleParts, match="too small to be halved twice"):
        VAE(space=Space(1, (3, 8)))


def blind(part: nn.Module) -> None:
    """Take away what looks at the whole image: normalisations, and attention with them."""
    for name, child in part.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(part, name, nn.Identity())
        else:
            blind(child)


def sees(maps: Tensor, point: Tensor) -> int:
    """Return how far to each side of the middle of `maps` (1, C, N, N) a number depends on them."""
    (grad,) = torch.autograd.grad(point, maps, retain_graph=True)
    lines = grad[0].abs().sum((0, 1)).nonzero().flatten()
    middle = maps.shape[-1] // 2
    return max(middle - int(lines.min()), int(lines.max()) - middle)


PARTS: list[tuple[type[Any], dict[str, Any]]] = [
    (KL, {"multipliers": (1, 1), "blocks": 1, "middle": False, "channels": 4}),
    (KL, {"multipliers": (1, 1, 1), "blocks": 2, "middle": False, "channels": 4}),
    (Tiny, {"blocks": (1, 2, 1), "channels": 4}),
]


@pytest.mark.parametrize(("kind", "config"), PARTS)
def test_a_pixel_sees_as_many_latents_as_declared(kind: type[Any], config: dict[str, Any]) -> None:
    side = 64
    part: ScaledAutoencoder = kind(space=Space(1, (16, 16)), **config).double()
    blind(part)
    for p in part.parameters():
        nn.init.uniform_(p, 0.01, 0.02)  # positive, so that nothing cancels and no ReLU is closed
    z = torch.zeros(1, part.latent_channels, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2 * part.stride
    image = part.picture(z)
    found = max(sees(z, image[0, 0, middle, at]) for at in (middle, middle + part.stride - 1))
    x = torch.zeros(1, 1, side * part.stride, side * part.stride, dtype=torch.float64, requires_grad=True)
    backward = -(-sees(x, part.moments(x)[0, 0, side // 2, side // 2]) // part.stride)
    assert max(found, backward) <= part.reach <= max(found, backward) + 1


def test_tiles_of_a_network_without_normalisations_show_no_seams() -> None:
    torch.manual_seed(0)
    part = Tiny(space=Space(3, (16, 16)), channels=8, blocks=(1, 1)).eval()
    x = torch.rand(1, 3, 96, 120) * 2 - 1
    with torch.inference_mode():
        z = part.encode(x).mode()
        whole = part.decode(z)
        part.tile = 2 * part.reach
        assert max(z.shape[2:]) > part.tile
        tiled, codes = part.decode(z), part.encode(x).mode()
    spread = float(whole.std())
    assert float((tiled - whole).abs().max()) < 0.02 * spread
    assert float((codes - z).abs().max()) < 0.02 * float(z.std())
