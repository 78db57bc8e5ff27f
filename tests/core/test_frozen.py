"""Frozen parts are not in training: what they drop or count stays as it is, and their feature maps can be read."""

import torch
from torch import nn

from diffloom.space import Space
from diffloom.system import Plan, System
from diffloom.testing.judged import _Echo
from diffloom.testing.standins import PlainAutoencoder, TinyDenoiser, vp

SPACE = Space(3, (8, 8))


def system() -> System:
    denoiser = TinyDenoiser(space=SPACE)
    denoiser.add_module("drop", nn.Dropout(0.5))
    return System(
        Plan(data_space=SPACE), autoencoder=PlainAutoencoder(channels=3), task=_Echo(), schedule=vp(), denoiser=denoiser
    )


def test_a_frozen_part_stays_in_evaluation_mode() -> None:
    built = system()
    assert built.train().denoiser.training
    built.denoiser.requires_grad_(False)
    assert built.train() is built
    assert built.training
    assert built.task.training
    assert not any(module.training for module in built.denoiser.modules())
    next(built.denoiser.parameters()).requires_grad_(True)  # partly frozen: it trains
    assert built.train().denoiser.training


def test_features_are_the_taps_of_a_pass() -> None:
    built = system().eval()
    x_t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([3.0, 40.0])
    _, maps = built.denoiser(x_t, t, read=("mid",))
    found = built.features(x_t, t, built.codes({}), ("mid",))
    assert list(found) == ["mid"]
    assert torch.equal(found["mid"], maps["mid"])
