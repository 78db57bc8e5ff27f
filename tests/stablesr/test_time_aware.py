"""The time-aware encoder and its modulations: identity at the start, published sizes, and what moves what."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from diffloom import Autoencoder, Space
from diffloom.condition import Condition
from diffloom.errors import IncompatibleParts
from diffloom_ddpm.identity import Identity
from diffloom_stablesr.time_aware import Modulation, TimeAwareSFT
from diffloom_unet import UNet

SPACE = Space(2, (16, 16))


def denoiser(**more: Any) -> UNet:
    torch.manual_seed(0)
    net = UNet(space=SPACE, channels=8, multipliers=(1, 2, 2), blocks=1, groups=4, **more).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # nothing stays 0, as in a trained network
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


class Two(Identity):
    """Pixels of two bands as latents."""

    latent_channels = 2


def conditioner(net: UNet, **more: Any) -> TimeAwareSFT:
    small: dict[str, Any] = {"channels": 8, "multipliers": (1, 1, 2), "blocks": 1, "heads": 1, "width": 8, "hidden": 4}
    return TimeAwareSFT(denoiser=net, autoencoder=autoencoder(), **(small | more)).eval()


def autoencoder() -> Autoencoder:
    return Two(space=SPACE)


def low_res() -> dict[str, torch.Tensor]:
    return {"low_res": torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1}


def moved(part: TimeAwareSFT) -> TimeAwareSFT:
    """Return the conditioner with modulations that do something."""
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return part


def told(part: TimeAwareSFT, t: float = 3.0) -> Condition:
    said: Condition = part(part.encode(low_res()), torch.zeros(2, 2, 16, 16), torch.tensor(t), Condition())
    return said


@torch.no_grad()
def test_a_new_conditioner_changes_nothing_at_all() -> None:
    net = denoiser()
    x, t = torch.randn(2, 2, 16, 16), torch.tensor(5.0)
    assert torch.equal(net(x, t, told(conditioner(net))), net(x, t))
    assert not torch.allclose(net(x, t, told(moved(conditioner(net)))), net(x, t))


@torch.no_grad()
def test_every_residual_branch_is_modulated() -> None:
    net = denoiser()
    edits = told(conditioner(net)).affine
    assert set(edits) == {tap.name for tap in net.taps if tap.name.startswith("res.")}
    assert len(edits) == 3 + 2 + 6


@torch.no_grad()
def test_the_normalised_form_begins_as_group_normalisation() -> None:
    modulation = Modulation(4, 8, hidden=4, groups=2)
    h = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(modulation(torch.randn(2, 4, 6, 6))(h), functional.group_norm(h, 2))
    assert modulation.gain is not None
    assert modulation.offset is not None
    modulation.gain.fill_(2)
    modulation.offset.fill_(0.5)
    torch.testing.assert_close(modulation(torch.randn(2, 4, 6, 6))(h), functional.group_norm(h, 2) * 2 + 0.5)


@torch.no_grad()
def test_the_formula_is_the_papers() -> None:
    modulation = Modulation(4, 8, hidden=4, groups=0)
    for parameter in modulation.parameters():
        parameter.copy_(torch.randn(parameter.shape))
    features, h = torch.randn(2, 4, 6, 6), torch.randn(2, 8, 6, 6)
    inner = functional.conv2d(features, modulation.inner.weight, modulation.inner.bias, padding=1).relu()
    alpha, beta = functional.conv2d(inner, modulation.outer.weight, modulation.outer.bias, padding=1).chunk(2, 1)
    torch.testing.assert_close(modulation(features)(h), (1 + alpha) * h + beta, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_features_have_one_width_at_every_stride_and_follow_the_time() -> None:
    net = denoiser()
    part = moved(conditioner(net))
    z = part.encode(low_res())
    early, late = (part.encoder(z, torch.tensor(t)) for t in (0.0, 900.0))
    assert {stride: tuple(m.shape) for stride, m in early.items()} == {s: (2, 8, 16 // s, 16 // s) for s in (1, 2, 4)}
    assert all(not torch.allclose(early[s], late[s]) for s in early)
    deaf = moved(conditioner(net, time=False))
    early, late = (deaf.encoder(z, torch.tensor(t)) for t in (0.0, 900.0))
    assert all(torch.equal(early[s], late[s]) for s in early)


@torch.no_grad()
def test_the_small_image_is_enlarged_and_nothing_is_black() -> None:
    part = conditioner(denoiser())
    batch = low_res()
    wanted = functional.interpolate(batch["low_res"], (16, 16), mode="bicubic").clamp(-1, 1)
    torch.testing.assert_close(part.encode(batch), wanted)
    assert not part.null(part.encode(batch)).any()


def test_the_published_number_of_parameters() -> None:
    """105.51 million trainable: 52.5 of the encoder, 53.02 of 22 modulations with normalisation."""
    with torch.device("meta"):
        net = UNet(
            space=Space(4, (64, 64)), channels=320, multipliers=(1, 2, 4, 4), attention=(64, 32, 16), head_width=64,
            context=1024, embedding="adm", padding="symmetric", eps=1e-5, vector=0,
        )  # fmt: skip
        part = TimeAwareSFT(denoiser=net, autoencoder=_latents(4), groups=32)
    count = {name: sum(p.numel() for p in child.parameters()) for name, child in part.named_children()}
    assert len(part.modulations) == 22
    assert round(count["modulations"] / 1e6, 2) == 53.02
    assert round((count["modulations"] + count["encoder"]) / 1e6, 2) == 105.51


def _latents(channels: int) -> Autoencoder:
    made = Two(space=Space(channels, (64, 64)))
    made.latent_channels = channels
    return made


def test_a_denoiser_with_more_levels_than_the_encoder_is_refused() -> None:
    with pytest.raises(IncompatibleParts, match="as many `multipliers` as the denoiser has levels"):
        conditioner(denoiser(), multipliers=(1, 1))


def test_only_encoder_and_modulations_are_trained() -> None:
    part = conditioner(denoiser())
    assert {name.split(".")[0] for name, _ in part.named_parameters()} == {"encoder", "modulations"}


def test_gradients_reach_the_last_layers_first_and_the_encoder_after_them() -> None:
    net = denoiser()
    part = conditioner(net)
    net(torch.randn(2, 2, 16, 16), torch.tensor(5.0), told(part)).square().mean().backward()
    assert all(m.get_submodule("outer").get_parameter("weight").grad.any() for m in part.modulations)  # type: ignore[union-attr]
    assert all(p.grad is None or not p.grad.any() for p in part.encoder.parameters())
    part = moved(conditioner(net))
    net(torch.randn(2, 2, 16, 16), torch.tensor(5.0), told(part)).square().mean().backward()
    assert part.encoder.stem.weight.grad is not None
    assert part.encoder.stem.weight.grad.abs().sum() > 0
