"""The convolution of a doubled map is what doubling first gives, however it is computed."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from diffloom_nets import Conv2d, Upsample, buffers, conv, doubling, product
from diffloom_nets.blocks import ResBlock
from diffloom_nets.taps import Taps


def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution of the doubled map in float64."""
    large = functional.interpolate(x.double(), scale_factor=2.0)
    return functional.conv2d(large, weight.double(), None if bias is None else bias.double(), padding=1)


def found(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    with torch.inference_mode():
        return doubling.convolve(x, doubling.transform(weight), bias)


@given(
    size=st.tuples(*(st.integers(1, 9) for _ in range(2))),
    channels=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    batch=st.integers(1, 3),
    piece=st.integers(1, 40),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_differences_add_up_to_the_convolution(
    size: tuple[int, int], channels: tuple[int, int], batch: int, piece: int, biased: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels[0], *size, generator=generator)
    weight = torch.randn(channels[1], channels[0], 3, 3, generator=generator)
    bias = torch.randn(channels[1], generator=generator) if biased else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doubling, "_PIECE", piece)
        out = found(x, weight, bias)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out.double(), plain(x, weight, bias), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(5, 7), (16, 16)])
@pytest.mark.parametrize("piece", [2048, 20])
def test_phases_round_little_more_than_the_convolution(
    size: tuple[int, int], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubling, "_PIECE", piece)
    torch.manual_seed(0)
    x = torch.randn(2, 96, *size).bfloat16()
    weight, bias = (torch.randn(64, 96, 3, 3) * 864**-0.5).bfloat16(), torch.randn(64).bfloat16()
    exact = plain(x, weight, bias)
    usual = functional.conv2d(functional.interpolate(x, scale_factor=2.0), weight, bias, padding=1)
    error, allowed = (found(x, weight, bias) - exact).square().mean(), (usual - exact).square().mean()
    assert error < 3 * allowed  # of the variance: as much again for the sums of taps


def test_four_outputs_cost_nine_products_of_which_eight_see_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[Tensor] = []
    multiply = product.multiply

    def watched(x: Tensor, *args: Any) -> Tensor:
        met.append(x)
        return multiply(x, *args)

    monkeypatch.setattr(doubling, "multiply", watched)
    found(torch.ones(1, 4, 3, 3), torch.randn(5, 4, 3, 3), None)
    assert len(met) == 9  # products per pair of channels for four outputs
    assert sum(bool(x[:, 1:-1, 1:-1].any()) for x in met) == 1


def layer(inputs: int, outputs: int) -> Conv2d:
    torch.manual_seed(0)
    return Conv2d(inputs, outputs, 3, padding=1).eval()


@pytest.mark.parametrize("channels", [(8, 8), (96, 128)])
@pytest.mark.parametrize("shift", [1, 3])
def test_silu_and_shift_come_along(channels: tuple[int, int], shift: int) -> None:
    net, x, move = layer(*channels), torch.randn(3, channels[0], 6, 10), torch.randn(shift, channels[1])
    expected = plain(functional.silu(x), net.weight, net.bias) + move[:, :, None, None]
    assert torch.allclose(net(x, move, silu=True, double=True).double(), expected, atol=1e-5)
    with torch.no_grad():
        for _ in range(2):
            assert torch.allclose(net(x.clone(), move, silu=True, double=True).double(), expected, atol=1e-5)


def test_doubled_filters_are_kept_beside_the_others_and_as_new_as_the_weights() -> None:
    net, other, x = layer(96, 96), layer(96, 128), torch.randn(1, 96, 8, 8)
    with torch.no_grad():
        for _ in range(2):
            assert torch.allclose(net(x, double=True).double(), plain(x, net.weight, net.bias), atol=1e-5)
            expected = functional.conv2d(x.double(), net.weight.double(), net.bias.double(), padding=1)  # type: ignore[union-attr]
            assert torch.allclose(net(x).double(), expected, atol=1e-5)
            other(x, double=True)  # it works in the same buffers
            assert torch.allclose(net(x, double=True).double(), plain(x, net.weight, net.bias), atol=1e-5)
            net.weight.mul_(0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [4, 16])
def test_large_weights_are_not_kept_twice(dtype: torch.dtype, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv, "_MOST_KEPT", 0)
    monkeypatch.setattr(conv, "_MOST_WEIGHTS", 0)
    net, x = layer(96, 96).to(dtype), torch.randn(1, 96, side, side).to(dtype)
    with torch.no_grad():
        out = net(x, double=True)
    exact = plain(x, net.weight, net.bias)
    assert not net._prepared
    assert out.dtype == dtype
    assert (out - exact).abs().max() < (1e-5 if dtype == torch.float32 else 2e-2) * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_doubles_in_its_type(dtype: torch.dtype, half: torch.dtype) -> None:
    net, x = layer(96, 96), torch.randn(1, 96, 16, 16).to(dtype)
    with torch.no_grad(), torch.autocast("cpu", dtype=half):
        out = net(x, double=True)
    exact = plain(x, net.weight, net.bias)
    assert out.dtype == half
    assert (out - exact).abs().max() < 2e-2 * exact.abs().max()


def test_buffers_do_not_heed_the_default_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_buffers", buffers._Buffers())
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        full, half = buffers.buffer("full", 3, 5), buffers.buffer("half", 3, 5, dtype=torch.float16)
    finally:
        torch.set_default_dtype(usual)
    assert (full.dtype, full.shape) == (torch.float32, (3, 5))
    assert (half.dtype, half.shape) == (torch.float16, (3, 5))


def test_upsampling_has_the_same_gradients_and_outputs_with_and_without_them() -> None:
    torch.manual_seed(0)
    net, x = Upsample(96).eval(), torch.randn(2, 96, 8, 8, requires_grad=True)
    out = net(x)
    with torch.inference_mode():
        assert torch.allclose(net(x), out, atol=1e-5)
    out.square().sum().backward()
    large = functional.interpolate(x.detach(), scale_factor=2.0).requires_grad_()
    net.conv(large).square().sum().backward()
    assert torch.allclose(x.grad, functional.avg_pool2d(large.grad, 2) * 4, rtol=1e-4, atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["halve", "double", None])
def test_a_block_resamples_alike_with_and_without_gradients(way: Any) -> None:
    torch.manual_seed(0)
    block = ResBlock(96, 128, resample=way).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, time = torch.randn(2, 96, 8, 8), torch.randn(1, block.time_width)
    kept = Taps(["res.block"], None, ["res.block"])
    with torch.no_grad():
        out = block(x, time, Taps((), None, ()))
        read = block(x, time, kept)
    expected = block(x, time, Taps((), None, ()))
    assert torch.allclose(out, expected, atol=1e-4)
    assert torch.equal(read, out)
    skip = x if way is None else functional.interpolate(x, scale_factor={"halve": 0.5, "double": 2.0}[way], mode="area")
    assert torch.allclose(kept.maps["res.block"] + block.skip(skip), expected, atol=1e-4)  # type: ignore[misc]
