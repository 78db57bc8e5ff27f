"""Our convolution is torch's convolution, however it computes it."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diffloom_nets import Conv2d, product, winograd
from diffloom_nets.prepared import arithmetic

SHAPES = [  # in, out, kernel, stride, padding, height, width
    (3, 8, 3, 1, 1, 12, 12),
    (8, 8, 3, 2, 0, 13, 13),
    (8, 8, 3, 2, 1, 12, 16),
    (16, 24, 1, 1, 0, 8, 8),
    (96, 96, 3, 1, 1, 16, 16),
    (96, 128, 3, 1, 1, 18, 23),
    (128, 96, 3, 1, 1, 8, 8),
]


def layer(inputs: int, outputs: int, kernel: int, stride: int, padding: int, *_: int) -> Conv2d:
    torch.manual_seed(0)
    return Conv2d(inputs, outputs, kernel, stride=stride, padding=padding).eval()


def plain(conv: Conv2d, x: Tensor) -> Tensor:
    bias = None if conv.bias is None else conv.bias.double()
    return functional.conv2d(x.double(), conv.weight.double(), bias, conv.stride, conv.padding)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_inference_equals_the_plain_convolution(shape: tuple[int, ...], batch: int) -> None:
    conv = layer(*shape)
    x = torch.randn(batch, shape[0], *shape[5:])
    with torch.inference_mode():
        for _ in range(2):
            assert torch.allclose(conv(x).double(), plain(conv, x), atol=1e-5)
        other = torch.randn(batch + 1, shape[0], *(side + 4 for side in shape[5:]))
        assert torch.allclose(conv(other).double(), plain(conv, other), atol=1e-5)
    assert conv._prepared


@pytest.mark.parametrize("shift", [1, 3])
def test_silu_and_shift_come_along(shift: int) -> None:
    conv, x = layer(*SHAPES[4]), torch.randn(3, 96, 16, 16)
    move = torch.randn(shift, 96)
    expected = plain(conv, functional.silu(x)) + move[:, :, None, None]
    assert torch.allclose(conv(x, move, silu=True).double(), expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(conv(x.clone(), move, silu=True).double(), expected, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_stays_bfloat16(autocast: bool) -> None:
    conv, x = layer(*SHAPES[4]), torch.randn(2, 96, 16, 16)
    expected = plain(conv, x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = conv(x) if autocast else conv.bfloat16()(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out - expected).norm() < 0.01 * expected.norm()


LARGE = [  # more weights than are kept twice: as one product, by Winograd on the fly, as they come
    (1280, 256, 3, 1, 1, 8, 8),
    (1280, 256, 3, 2, 1, 8, 6),
    (1280, 256, 3, 2, 0, 9, 9),
    (1280, 1700, 1, 1, 0, 24, 25),
    (640, 640, 3, 1, 1, 32, 32),
    (640, 640, 3, 1, 1, 34, 30),
    (1280, 256, 3, 1, 1, 14, 13),
    (640, 640, 3, 2, 1, 64, 64),
]


@pytest.mark.parametrize("shape", LARGE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_weights_are_not_kept_twice(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    conv, x = layer(*shape), torch.randn(2, shape[0], *shape[5:])
    shift = torch.randn(1, shape[1])
    expected = plain(conv, functional.silu(x)) + shift[:, :, None, None]
    conv = conv.to(dtype)
    with torch.inference_mode():
        out = conv(x.to(dtype), shift.to(dtype), silu=True)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert (out - expected).norm() < (0.01 if dtype == torch.bfloat16 else 1e-5) * expected.norm()
    assert not conv._prepared


@pytest.mark.parametrize("shape", [LARGE[0], LARGE[3]])
def test_large_weights_multiply_in_float32_where_bfloat16_is_emulated(shape: tuple[int, ...]) -> None:
    conv, x = layer(*shape), torch.randn(1, shape[0], *shape[5:])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        out = conv(x)
    assert out.dtype == torch.bfloat16
    rounded = plain(conv, x)
    assert (out - rounded).norm() < (0.002 if arithmetic(torch.bfloat16) == torch.float32 else 0.01) * rounded.norm()


@pytest.mark.parametrize("tiling", [winograd.TWO, winograd.FOUR])
@pytest.mark.parametrize("packs", [False, True])
def test_winograd_in_parts_is_the_convolution(
    tiling: winograd.Tiling, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(winograd, "_MANY_OUTPUTS", 1 if packs else 14)
    x, weight, bias = torch.randn(2, 8, 11, 14), torch.randn(13, 8, 3, 3), torch.randn(13)
    expected = functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    for most, piece in ((1, 128), (36 * 8 * 5, 5), (1 << 24, 1)):
        monkeypatch.setattr(winograd, "_MOST_FILTERS", most)
        monkeypatch.setattr(winograd, "_PIECE", piece)
        for given in (bias, None):
            out = winograd.transient(x, weight, given, tiling=tiling)
            wanted = expected if given is not None else expected - bias[:, None, None]
            assert torch.allclose(out.double(), wanted, atol=1e-4)
            assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("rows", "groups", "outputs", "inputs"), [(1, 1, 1, 1), (7, 3, 5, 11), (130, 4, 64, 48)])
def test_groups_multiply_each_for_itself(rows: int, groups: int, outputs: int, inputs: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(rows, groups, inputs), torch.randn(groups, outputs, inputs)
    expected = torch.einsum("rgi,goi->rgo", x.double(), weight.double())
    for packed_for in (1, rows):  # for another number of rows the layout may not be the fastest
        found = product.grouped(x, product.pack(weight, packed_for), groups)
        assert torch.allclose(found.double(), expected, atol=1e-5)
        assert found.is_contiguous()


def test_packed_tiles_meet_filters_where_outputs_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[tuple[int, int]] = []
    grouped = product.grouped

    def counted(x: Tensor, packed: Tensor, groups: int) -> Tensor:
        met.append((len(x), groups))
        return grouped(x, packed, groups)

    monkeypatch.setattr(product, "grouped", counted)
    for outputs in (640, 320):
        conv = layer(960, outputs, 3, 1, 1)
        with torch.inference_mode():
            conv(torch.randn(1, 960, 32, 32))
    assert met == [(320, 36), (320, 36)]  # 640 outputs in two parts; 320 are not enough


@pytest.mark.parametrize(("tiling", "products"), [(winograd.TWO, 16), (winograd.FOUR, 36)])
def test_a_tile_is_filtered_with_the_fewest_products(tiling: winograd.Tiling, products: int) -> None:
    torch.manual_seed(0)
    tile, filters = torch.randn(tiling.window, tiling.window), torch.randn(3, 3)
    found = tiling.output @ ((tiling.filters @ filters.flatten()) * (tiling.data @ tile.flatten()))
    expected = functional.conv2d(tile[None, None], filters[None, None]).flatten()
    assert tiling.data.shape == (products, products)
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("side", "tiling"), [(16, winograd.TWO), (24, winograd.FOUR), (12, None)])
def test_few_pixels_take_small_tiles(side: int, tiling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    conv, taken, real = layer(640, 640, 3, 1, 1), [], winograd.transient

    def counted(*args: Any, tiling: winograd.Tiling = winograd.FOUR, **kwargs: Any) -> Tensor:
        taken.append(tiling)
        return real(*args, tiling=tiling, **kwargs)

    monkeypatch.setattr(winograd, "transient", counted)
    with torch.inference_mode():
        conv(torch.randn(1, 640, side, side))
    assert taken == ([] if tiling is None else [tiling])


def changed_in_place(conv: Conv2d) -> None:
    with torch.no_grad():
        conv.weight.mul_(-2)


def changed_in_inference_mode(conv: Conv2d) -> None:
    with torch.inference_mode():
        conv.weight.mul_(-2)


def loaded(conv: Conv2d) -> None:
    conv.load_state_dict({name: -2 * value for name, value in conv.state_dict().items()})


def assigned(conv: Conv2d) -> None:
    conv.load_state_dict({name: -2 * value for name, value in conv.state_dict().items()}, assign=True)


def replaced(conv: Conv2d) -> None:
    conv.weight = torch.nn.Parameter(-2 * conv.weight.detach())


def hidden(conv: Conv2d) -> None:
    conv.weight.data.mul_(-2)
    conv.eval()


def trained(conv: Conv2d) -> None:
    optimiser = torch.optim.Adam(conv.parameters(), lr=0.05, fused=True)
    conv(torch.randn(1, conv.in_channels, 16, 16)).sum().backward()
    optimiser.step()


@pytest.mark.parametrize(
    "change", [changed_in_place, changed_in_inference_mode, loaded, assigned, replaced, hidden, trained]
)
@pytest.mark.parametrize("shape", [SHAPES[4], SHAPES[6]])
def test_changed_weights_are_seen(change: Callable[[Conv2d], None], shape: tuple[int, ...]) -> None:
    conv, x = layer(*shape), torch.randn(1, shape[0], 16, 16)
    with torch.no_grad():
        before = conv(x)
    change(conv)
    with torch.no_grad():
        assert torch.allclose(conv(x).double(), plain(conv, x), atol=1e-4)
        assert not torch.allclose(conv(x), before, atol=1e-2)


def test_what_is_prepared_is_neither_saved_nor_copied_nor_kept_for_training() -> None:
    conv, x = layer(*SHAPES[4]), torch.randn(1, 96, 16, 16)
    names = set(conv.state_dict())
    with torch.no_grad():
        conv(x)
    assert conv._prepared
    assert set(conv.state_dict()) == names == {"weight", "bias"}
    for twin in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert not twin._prepared
        with torch.no_grad():
            assert torch.equal(twin(x), conv(x))
    conv(x)
    assert not conv._prepared


def test_tracers_and_counters_see_an_ordinary_convolution() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    conv = layer(*SHAPES[4])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        conv(torch.randn(1, 96, 16, 16))
    assert counter.get_total_flops() == 2 * 96 * 96 * 9 * 256
    meta = copy.deepcopy(conv).to("meta")
    assert meta(torch.empty(2, 96, 16, 16, device="meta")).shape == (2, 96, 16, 16)
    with torch.no_grad():
        mapped = torch.vmap(conv)(torch.randn(2, 1, 96, 16, 16))
    assert mapped.shape == (2, 1, 96, 16, 16)


@pytest.mark.parametrize("size", [(16, 16), (7, 10)])
def test_winograd_gradients_are_the_convolution_s(size: Any) -> None:
    torch.manual_seed(0)
    arguments = torch.randn(3, 8, *size), torch.randn(12, 8, 3, 3), torch.randn(12)
    grad = torch.randn(3, 12, *size)

    def run(convolve: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        leaves = [a.to(dtype).requires_grad_() for a in arguments]
        out = convolve(*leaves)
        return [out, *torch.autograd.grad(out, leaves, grad.to(dtype))]

    exact = run(lambda x, w, b: functional.conv2d(x, w, b, padding=1), torch.float64)
    for ours, theirs in zip(run(winograd.convolve, torch.float32), exact, strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * theirs.std()


def test_winograd_is_twice_differentiable() -> None:
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    weight = torch.randn(4, 4, 3, 3, requires_grad=True)

    def penalty(convolve: Callable[..., Tensor]) -> Tensor:
        (slope,) = torch.autograd.grad(convolve(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), weight)[0]

    ours = penalty(lambda x: winograd.convolve(x, weight, None))
    assert torch.allclose(ours, penalty(lambda x: functional.conv2d(x, weight, padding=1)), rtol=1e-3)


def test_training_takes_winograd_when_it_is_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    real = winograd.convolve

    def counted(*arguments: Any) -> Tensor:
        taken.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(winograd, "convolve", counted)
    conv = layer(*SHAPES[4]).train()
    conv(torch.randn(1, 96, 16, 16))
    assert not taken
    x = torch.randn(16, 96, 16, 16)
    assert torch.allclose(conv(x).double(), plain(conv, x), atol=1e-5)
    assert taken
