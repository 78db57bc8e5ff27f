"""The head's wiring and size, and what its answer is asked to be."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from diffloom.space import Space
from diffloom_fusion import losses
from diffloom_fusion.blend import grey
from diffloom_fusion.features import chosen
from diffloom_fusion.head import FusionHead, Gate
from diffloom_unet.unet import UNet
from tests.fusion.parts import scene


def test_the_paper_s_head_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        denoiser = UNet(space=Space(4, (160, 160)), channels=128, multipliers=(1, 2, 4, 8, 8), blocks=2, dropout=0.2)
        taps = chosen(denoiser, None)
        head = FusionHead(widths=[tap.channels for tap in taps], times=3, out_channels=3)
    assert [(tap.name, tap.channels, tap.stride) for tap in taps] == [
        ("up.0", 1024, 16), ("up.3", 1024, 8), ("up.6", 512, 4), ("up.9", 256, 2), ("up.12", 128, 1),
    ]  # fmt: skip
    assert sum(tap.name.startswith("up.") for tap in denoiser.taps) == 15
    assert sum(p.numel() for p in head.parameters()) == 46_405_703
    assert sum(p.numel() for p in head.blocks[-1].parameters()) == 196_864


def levels(head_times: int = 3, side: int = 32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, head_times * w, side // s, side // s, generator=generator) for w, s in ((8, 4), (4, 2), (2, 1))
    ]


@pytest.mark.parametrize("times", [1, 3])
def test_the_answer_is_as_large_as_the_finest_maps(times: int) -> None:
    head = FusionHead(widths=(8, 4, 2), times=times, out_channels=3)
    for side in (16, 32, 48):
        assert head(levels(times, side)).shape == (2, 3, side, side)


def test_the_published_wiring_leaves_the_finest_maps_without_gradient() -> None:
    for finest in (False, True):
        torch.manual_seed(0)
        head = FusionHead(widths=(8, 4, 2), times=3, out_channels=3, finest=finest)
        head(levels()).square().mean().backward()
        reached = [p.grad is not None and bool(p.grad.any()) for p in head.blocks[-1].parameters()]
        assert all(reached) if finest else not any(reached)
        assert all(p.grad is not None for p in head.blocks[0].parameters())


def test_a_gate_with_weights_of_zero_lets_everything_through() -> None:
    gate, h = Gate(6), torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    for parameter in gate.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(gate(h), h)
    gate.pixel.state_dict()["bias"].fill_(50.0)  # every pixel: ½ + 1
    assert torch.allclose(gate(h), 1.5 * h)


def test_the_target_of_the_paper_is_reached_by_the_brightest() -> None:
    visible, infrared = scene().values()
    wanted = losses.target("max", visible, [infrared])
    assert torch.equal(wanted, torch.maximum(visible, infrared))
    assert losses.intensity_loss(wanted, wanted).tolist() == [0, 0]
    same = [losses.intensity_loss(visible, losses.target("max", visible, [visible[:, :1]]))[0]]
    assert float(same[0]) > 0  # the first channel is not the others
    twin = visible[:, :1].expand(-1, 3, -1, -1)
    for rule in get_args(losses.Target):
        found = losses.target(rule, twin, [twin[:, :1]])
        assert torch.allclose(found, twin, atol=1e-6), rule
    assert losses.gradient_loss(twin, twin, [twin[:, :1]]).abs().max() < 1e-6


def test_luma_targets_keep_colours_and_take_only_more_light() -> None:
    visible, infrared = scene().values()
    lifted = {rule: losses.target(rule, visible, [infrared]) - visible for rule in ("luma-max", "salient", "active")}
    for rule, lift in lifted.items():
        assert torch.allclose(lift, lift[:, :1].expand_as(lift), atol=1e-6), rule
        assert lift.min() >= -1e-6
        assert (lift <= lifted["luma-max"] + 1e-6).all()
    assert torch.allclose(lifted["luma-max"][:, :1], (infrared - grey(visible)).clamp_min(0), atol=1e-6)


def test_what_is_active_is_where_the_other_has_stronger_edges() -> None:
    visible = torch.full((1, 3, 64, 64), -0.5)
    infrared = torch.full((1, 1, 64, 64), 0.5)
    infrared[..., 44:52, 44:52] = 1.0
    lift = losses.target("active", visible, [infrared]) - visible
    assert (lift[..., 44:52, 44:52] == 1.5).all()
    assert (lift[..., :30, :30] == 0).all()


def test_gradients_are_sobel_s_whatever_the_sign_and_the_level() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8) / 10
    assert torch.allclose(losses.gradient(ramp)[..., 1:-1, 1:-1], torch.full((6, 6), 0.8), atol=1e-6)
    (visible, infrared) = scene().values()
    assert torch.allclose(losses.gradient(-visible), losses.gradient(visible))
    assert losses.gradient(torch.full((1, 1, 6, 6), 0.3)).abs().max() == 0
    fused = losses.target("mean", visible, [infrared])
    base = losses.gradient_loss(fused, visible, [infrared])
    assert torch.allclose(losses.gradient_loss(fused + 0.1, visible, [infrared]), base, atol=1e-5)
    flipped = [image.flip(-1) for image in (fused, visible, infrared)]
    assert torch.allclose(losses.gradient_loss(flipped[0], flipped[1], [flipped[2]]), base, atol=1e-6)
    wanted = losses.target("max", visible, [infrared])
    assert not torch.allclose(losses.intensity_loss(fused + 0.1, wanted), losses.intensity_loss(fused, wanted))


def test_the_colour_loss_sees_colours_alone() -> None:
    visible, infrared = scene().values()
    assert losses.colour_loss(visible + 0.1, visible).max() < 1e-6
    assert (losses.colour_loss(torch.maximum(visible, infrared), visible) > 0.01).all()
