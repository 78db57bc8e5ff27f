import copy
from typing import Any

import pytest
import torch

from diffloom.condition import Condition
from diffloom.errors import IncompatibleParts
from diffloom.space import Space
from diffloom_nets import CrossAttention, group_count
from diffloom_unet import UNet
from tests.unet.parity import LATENT, SD1, SD2, scramble

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
    assert parameters(3, size, config) == count


RESIDUAL: dict[str, Any] = {"resampling": "residual", "heads": 8}
DEEP: dict[str, Any] = {"channels": 128, "multipliers": (1, 2, 3, 4), "attention": (32, 16, 8), "head_width": 32}
LATENT_NETWORKS: dict[str, tuple[int, int, dict[str, Any], int]] = {
    "sd1": (4, 64, SD1, 859_520_964),
    "sd2": (4, 64, SD2, 865_910_724),
    "celeba-hq": (3, 64, {**DEEP, "channels": 224}, 274_056_163),
    "churches": (
        4,
        32,
        {**RESIDUAL, "channels": 192, "multipliers": (1, 2, 2, 4, 4), "attention": (32, 16, 8, 4), "scale_shift": True},
        294_966_916,
    ),
    "cin256-v2": (
        3,
        64,
        {**DEEP, "channels": 192, "multipliers": (1, 2, 3, 5), "head_width": None, "context": 512},
        400_920_579,
    ),
    "cin f8": (
        4,
        32,
        {"channels": 256, "multipliers": (1, 2, 4), "attention": (32, 16, 8), "heads": 8, "context": 512},
        394_984_196,
    ),
    "text": (4, 32, {**SD1, "attention": (32, 16, 8), "context": 1280}, 872_300_484),
    "layout": (3, 64, {**DEEP, "context": 512, "depth": 3}, 246_277_379),
    "semantic": (3, 64, {"channels": 128, "multipliers": (1, 4, 8), "heads": 8, "concat": 3}, 215_229_315),
    "inpaint big": (3, 64, {**DEEP, **RESIDUAL, "channels": 256, "head_width": None, "concat": 4}, 387_245_827),
    "bsr_sr": (
        3,
        64,
        {"channels": 160, "multipliers": (1, 2, 2, 4), "attention": (8,), "head_width": 32, "concat": 3},
        113_622_563,
    ),
}


@pytest.mark.parametrize("name", list(LATENT_NETWORKS))
def test_latent_diffusion_s_networks_have_their_number_of_parameters(name: str) -> None:
    bands, size, config, count = LATENT_NETWORKS[name]
    assert parameters(bands, size, {**LATENT, **config}) == count


def parameters(bands: int, size: int, config: dict[str, Any]) -> int:
    with torch.device("meta"):
        net = UNet(space=Space(bands, (size, size)), **config)
    return sum(parameter.numel() for parameter in net.parameters())


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


def test_a_prepared_context_is_not_projected_again() -> None:
    net, calls = small(context=6, heads=2), []
    layers = [layer for layer in net.modules() if isinstance(layer, CrossAttention)]
    assert len({layer.name for layer in layers}) == len(layers) == 4
    for layer in layers:
        layer.kv.register_forward_hook(lambda *_: calls.append(1))
    told = net.prepare(Condition(context=torch.randn(2, 5, 6)))
    assert set(told.projected) == {layer.name for layer in layers}
    assert len(calls) == 4
    for t in (3, 700):
        net(torch.randn(2, 3, 16, 16), torch.tensor(t), told)
    assert len(calls) == 4
    assert net.prepare(Condition()) == Condition()
    with pytest.raises(IncompatibleParts, match="context port does not fit: expected width 6, got width 5"):
        net.prepare(Condition(context=torch.randn(2, 5, 5)))


def test_a_network_with_a_context_needs_one() -> None:
    with pytest.raises(IncompatibleParts, match="context port does not fit: expected width 6, got width 0"):
        small(context=6)(torch.randn(1, 3, 16, 16), torch.tensor(0))


def test_depths_that_are_not_one_per_level_are_refused() -> None:
    with pytest.raises(IncompatibleParts, match=r"denoiser\.depth.*one number, or 2 of them, got 1, 2, 3"):
        small(context=6, depth=(1, 2, 3))


def test_residual_resampling_has_taps_of_its_own() -> None:
    net = small(resampling="residual", multipliers=(1, 2, 2))
    strides = {tap.name: tap.stride for tap in net.taps}
    assert [strides[f"res.{name}"] for name in ("halve.0", "halve.1", "double.0", "double.1")] == [2, 4, 2, 1]
    x, t = torch.randn(2, 3, 16, 16), torch.tensor(3)
    out, maps = net(x, t, read=["res.halve.0", "res.double.1"])
    assert torch.equal(out, net(x, t))
    assert maps["res.halve.0"].shape == (2, 16, 8, 8)
    assert maps["res.double.1"].shape == (2, 32, 16, 16)
