import copy
from typing import Any

import pytest
import torch

from diffloom.condition import Condition
from diffloom.errors import IncompatibleParts
from diffloom.space import Space
from diffloom_nets import group_count
from diffloom_unet import UNet
from tests.unet.parity import pair, scramble

IDDPM: dict[str, Any] = {
    "channels": 128,
    "blocks": 3,
    "attention": (16, 8),
    "heads": 4,
    "embedding": "adm",
    "scale_shift": True,
    "padding": "symmetric",
    "eps": 1e-5,
    "variance": "learned",
}
SMALL: dict[str, Any] = {"channels": 16, "multipliers": (1, 2), "blocks": 1, "attention": (8,)}


def small(size: int = 16, bands: int = 3, **config: Any) -> UNet:
    return scramble(UNet(space=Space(bands, (size, size)), **{**SMALL, **config})).eval()


@pytest.mark.parametrize(
    ("size", "config", "count"),
    [
        (32, {"channels": 128, "attention": (16,)}, 35_746_307),
        (256, {"channels": 128, "multipliers": (1, 1, 2, 2, 4, 4), "attention": (16,)}, 113_673_219),
        (64, {"channels": 128, "multipliers": (1, 2, 2, 2, 4), "attention": (16,)}, 78_700_803),
        (32, IDDPM, 52_546_438),
        (64, {**IDDPM, "multipliers": (1, 2, 3, 4)}, 121_063_942),
    ],
    ids=["cifar", "256", "celeba", "iddpm-cifar", "iddpm-imagenet64"],
)
def test_the_papers_networks_have_their_number_of_parameters(size: Any, config: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        net = UNet(space=Space(3, (size, size)), **config)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize(
    "config",
    [
        {"channels": 32, "attention": (16,), "groups": 8},
        {
            "channels": 32,
            "attention": (16, 8),
            "embedding": "adm",
            "padding": "symmetric",
            "head_width": 16,
            "groups": 16,
        },
        {"channels": 96, "multipliers": (1, 2), "blocks": 1, "variance": "learned"},
    ],
    ids=["ddpm", "adm", "wide"],
)
@pytest.mark.parametrize("bands", [1, 3])
def test_outputs_equal_diffusers_on_equal_weights(config: dict[str, Any], bands: int) -> None:
    ours, theirs = pair(32, bands, **config)
    x, t = torch.randn(2, bands, 32, 32), torch.tensor([3, 700])
    with torch.no_grad():
        expected = theirs(x, t).sample
        assert expected.std() > 0.1
        assert (ours(x, t) - expected).abs().max() < 1e-4
        assert (ours(x, torch.tensor(3)) - theirs(x, 3).sample).abs().max() < 1e-4
    assert (ours(x, t) - expected).abs().max() < 1e-4


def test_scale_and_shift_equal_diffusers() -> None:
    config: dict[str, Any] = {
        "channels": 64,
        "multipliers": (1, 2),
        "scale_shift": True,
        "embedding": "adm",
        "eps": 1e-5,
    }
    ours, theirs = pair(16, **config)  # diffusers' middle attention then has no normalisation: `pair` mutes it
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        expected = theirs(x, t).sample
        assert (ours(x, t) - expected).abs().max() < 1e-4
        assert (ours(x, torch.tensor(3)) - theirs(x, 3).sample).abs().max() < 1e-4


def test_the_output_is_exactly_zero_at_the_start() -> None:
    net = UNet(space=Space(3, (16, 16)), **SMALL)
    assert not net(torch.randn(2, 3, 16, 16), torch.tensor([1, 2])).any()


@pytest.mark.parametrize("config", [{}, {"scale_shift": True}, {"variance": "learned"}])
@pytest.mark.parametrize("training", [False, True])
def test_one_time_equals_a_batch_of_it(config: dict[str, Any], training: bool) -> None:
    net = small(**config).train(training)
    x = torch.randn(3, 3, 16, 16)
    one, many = net(x, torch.tensor(5)), net(x, torch.full((3,), 5))
    assert one.std() > 0.1
    assert torch.allclose(one, many, atol=1e-5)
    assert torch.allclose(net(x, torch.tensor(5.0)), one, atol=1e-6)
    with torch.inference_mode():
        assert torch.allclose(net(x, torch.tensor(5)), one, atol=1e-5)
        assert torch.allclose(net(x, torch.full((3,), 5)), one, atol=1e-5)


def test_an_item_does_not_depend_on_its_batch() -> None:
    net = small()
    x, t = torch.randn(4, 3, 16, 16), torch.tensor([1, 20, 300, 999])
    with torch.inference_mode():
        whole = net(x, t)
        for i in range(4):
            assert torch.allclose(net(x[i : i + 1], t[i : i + 1]), whole[i : i + 1], atol=1e-5)


@pytest.mark.parametrize("bands", [1, 2, 5, 13])
@pytest.mark.parametrize("size", [(16, 16), (8, 24), (20, 12)])
def test_any_channels_and_any_size_that_divides(bands: int, size: Any) -> None:
    net = scramble(UNet(space=Space(bands, size), channels=12, multipliers=(1, 2), blocks=1)).eval()
    x = torch.randn(2, bands, *size)
    assert net(x, torch.tensor(3)).shape == x.shape
    larger = torch.randn(1, bands, 32, 28)
    assert net(larger, torch.tensor([3])).shape == larger.shape


def test_a_size_that_does_not_divide_is_refused_with_the_multiple() -> None:
    with pytest.raises(IncompatibleParts, match="multiples of 8, got 30 × 32"):
        UNet(space=Space(3, (30, 32)))
    with pytest.raises(IncompatibleParts, match="multiples of 2, got 17 × 16"):
        small()(torch.randn(1, 3, 17, 16), torch.tensor(0))


def test_attention_at_a_size_of_no_level_is_refused() -> None:
    with pytest.raises(IncompatibleParts, match="expected some of 32, 16, 8, 4, got 7"):
        UNet(space=Space(3, (32, 32)), attention=[16, 7])


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(IncompatibleParts, match="divisor of 32, got head_width 24"):
        small(head_width=24)
    with pytest.raises(IncompatibleParts, match="divisor of 32, got heads 5"):
        small(heads=5)


def test_a_condition_that_does_not_fit_the_ports_is_refused() -> None:
    net, x, t = small(concat=2), torch.randn(1, 3, 16, 16), torch.tensor(0)
    channels = torch.randn(1, 2, 16, 16)
    with pytest.raises(IncompatibleParts, match="concat port does not fit: expected width 2, got width 0"):
        net(x, t)
    with pytest.raises(IncompatibleParts, match="vector port does not fit: expected width 64, got width 5"):
        net(x, t, Condition(concat=channels, vector=torch.randn(1, 5)))
    with pytest.raises(IncompatibleParts, match="context port does not fit: expected width 0, got width 8"):
        net(x, t, Condition(concat=channels, context=torch.randn(1, 4, 8)))


def test_vector_and_concat_are_heard() -> None:
    net, x, t = small(concat=2), torch.randn(2, 3, 16, 16), torch.tensor(0)
    beside = torch.randn(2, 2, 16, 16)
    told = Condition(concat=beside)
    base = net(x, t, told)
    assert not torch.allclose(net(x, t, Condition(concat=beside.flip(1))), base, atol=1e-3)
    vector = torch.randn(2, net.ports.vector)
    assert not torch.allclose(net(x, t, told | Condition(vector=vector)), base, atol=1e-3)
    assert torch.allclose(net(x, t, told | Condition(vector=0 * vector)), base, atol=1e-5)


@pytest.mark.parametrize("config", [{}, {"scale_shift": True, "heads": 2, "dropout": 0.1, "vector": 7}])
def test_gradient_reaches_everything(config: dict[str, Any]) -> None:
    net = small(**config).train()
    vector = torch.randn(2, net.ports.vector)
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    net(x, torch.tensor([3, 4]), Condition(vector=vector)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert x.grad is not None
    assert x.grad.any()


def test_dropout_acts_in_training_only() -> None:
    net, x, t = small(dropout=0.5), torch.randn(1, 3, 16, 16), torch.tensor(3)
    assert torch.equal(net(x, t), net(x, t))
    net.train()
    assert not torch.equal(net(x, t), net(x, t))


def test_types_of_input_and_weights_may_differ() -> None:
    net, x, t = small(), torch.randn(1, 3, 16, 16), torch.tensor(3)
    with torch.no_grad():
        expected = net(x, t)
        assert net(x.double(), t).dtype == torch.float64
        low = copy.deepcopy(net).bfloat16()
        assert low(x, t).dtype == torch.float32
        assert low(x.bfloat16(), t).dtype == torch.bfloat16
        assert (low(x, t) - expected).norm() < 0.03 * expected.norm()
        exact = copy.deepcopy(net).double()(x.double(), t)
        assert torch.allclose(expected.double(), exact, atol=1e-5)


def test_the_output_is_laid_out_as_images_are() -> None:
    assert small()(torch.randn(2, 3, 16, 16), torch.tensor(3)).is_contiguous()


def test_groups_are_the_largest_divisor() -> None:
    assert [group_count(n) for n in (128, 64, 48, 32, 20, 37, 2, 1)] == [32, 32, 24, 16, 10, 1, 1, 1]
    assert group_count(128, 8) == 8


@pytest.mark.parametrize("channels", [2, 6, 16])
@pytest.mark.parametrize("scale_shift", [False, True])
def test_time_is_heard_at_any_width(channels: int, scale_shift: bool) -> None:
    net = small(channels=channels, scale_shift=scale_shift)
    x = torch.randn(1, 3, 16, 16)
    early, late = net(x, torch.tensor(1)), net(x, torch.tensor(900))
    assert (early - late).std() > 0.01 * early.std()
