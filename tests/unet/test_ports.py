"""What a third party can do with the taps, with the package it would publish."""

import sys
from pathlib import Path

import pytest
import torch

from diffloom.condition import Condition, stack
from diffloom.conditioner import Conditioner
from tests.unet.parity import scramble
from tests.unet.test_unet import small

sys.path.insert(0, str(Path(__file__).parents[1] / "packages" / "diffloom_port_examples" / "src"))

from diffloom_port_examples.hint_branch import HintBranch, edges  # type: ignore[import-not-found]
from diffloom_port_examples.time_modulation import TimeModulation  # type: ignore[import-not-found]

NET = small()
X, T = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
BATCH = {"image": torch.randn(2, 3, 16, 16)}


@pytest.mark.parametrize("kind", [HintBranch, TimeModulation])
@pytest.mark.parametrize("inference", [False, True])
def test_a_new_conditioner_changes_no_bit(kind: type[Conditioner], inference: bool) -> None:
    conditioner = kind(denoiser=NET)
    with torch.inference_mode(inference):
        told = conditioner(conditioner.encode(BATCH), X, T, Condition())
        assert set(told.affine) == set(conditioner.gives.affine)
        assert set(told.affine) <= set(NET.ports.affine)
        assert torch.equal(NET(X, T, told), NET(X, T))


@pytest.mark.parametrize("kind", [HintBranch, TimeModulation])
def test_a_trained_conditioner_is_heard_and_null_is_not(kind: type[Conditioner]) -> None:
    conditioner = scramble(kind(denoiser=NET))
    code = conditioner.encode(BATCH)
    plain = NET(X, T)
    assert not torch.allclose(NET(X, T, conditioner(code, X, T, Condition())), plain, atol=1e-3)
    null = conditioner(conditioner.null(code), X, T, Condition())
    assert torch.allclose(NET(X, T, null), plain, atol=1e-5)
    joined = stack([code, conditioner.null(code)])
    both = NET(torch.cat([X, X]), torch.cat([T, T]), conditioner(joined, X, torch.cat([T, T]), Condition()))
    assert torch.allclose(both[:2], NET(X, T, conditioner(code, X, T, Condition())), atol=1e-5)


def test_gradient_reaches_a_conditioner_and_spares_the_frozen_denoiser() -> None:
    frozen = small().requires_grad_(False)
    for kind in (HintBranch, TimeModulation):
        conditioner = scramble(kind(denoiser=frozen))
        told = conditioner(conditioner.encode(BATCH), X, T, Condition())
        frozen(X, T, told).square().mean().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in conditioner.parameters())
    assert all(parameter.grad is None for parameter in frozen.parameters())


def test_the_hint_is_an_image_s_edges() -> None:
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert not edges(flat).any()
    flat[..., 4:] = 1.0
    assert torch.equal(edges(flat)[0, 0].any(0).nonzero().flatten(), torch.tensor([3]))
    a, b = BATCH, {"image": BATCH["image"].roll(3, -1)}
    conditioner = scramble(HintBranch(denoiser=NET))
    assert not torch.allclose(NET(X, T, conditioner.encode(a)), NET(X, T, conditioner.encode(b)), atol=1e-3)


def test_the_modulation_knows_the_time() -> None:
    conditioner = scramble(TimeModulation(denoiser=NET))
    told = conditioner(conditioner.encode(BATCH), X, torch.tensor([3, 700]), Condition())
    first, second = told.affine["res.mid.0"].scale
    assert not torch.allclose(first, second, atol=1e-3)
    one = conditioner(conditioner.encode(BATCH), X, torch.tensor(3), Condition())
    assert torch.allclose(one.affine["res.mid.0"].scale[0], first, atol=1e-6)


def test_both_conditioners_work_together() -> None:
    hint, modulation = scramble(HintBranch(denoiser=NET)), scramble(TimeModulation(denoiser=NET), seed=1)
    told = hint.encode(BATCH) | modulation(modulation.encode(BATCH), X, T, Condition())
    apart = [NET(X, T), NET(X, T, hint.encode(BATCH)), NET(X, T, told)]
    assert not torch.allclose(apart[0], apart[1], atol=1e-3)
    assert not torch.allclose(apart[1], apart[2], atol=1e-3)


def test_a_reader_gets_features_at_several_timesteps_in_one_batch() -> None:
    image, times = torch.randn(1, 3, 16, 16), torch.tensor([5, 50, 500])
    names = [tap.name for tap in NET.taps if tap.name.startswith("up.")]
    with torch.no_grad():
        _, maps = NET(image.expand(3, -1, -1, -1), times, read=names)
        assert list(maps) == ["up.0", "up.1", "up.2", "up.3"]
        for i, t in enumerate(times):
            _, alone = NET(image, t, read=names)
            for name in names:
                assert torch.allclose(maps[name][i], alone[name][0], atol=1e-4)
        assert not torch.allclose(maps["up.3"][0], maps["up.3"][2], atol=1e-2)
