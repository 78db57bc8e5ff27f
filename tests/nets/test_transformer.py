"""Attention and transformers: closed forms, masks, and what is projected once."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from diffloom.condition import Condition
from diffloom_nets import CrossAttention, FeedForward, Linear, SpatialTransformer, TransformerBlock, attend
from diffloom_nets.attention import blockwise
from tests.unet.parity import scramble


def plainly(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor) -> Tensor:
    """softmax(QKᵀ/√d) V, head by head, in float64."""
    found = []
    for a, b, c in zip(*(x.double().chunk(heads, -1) for x in (q, k, v)), strict=True):
        scores = a @ b.mT / a.shape[-1] ** 0.5
        found.append(torch.softmax(scores.masked_fill(~mask[:, None], -torch.inf), -1) @ c)
    return torch.cat(found, -1)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 20), st.integers(1, 9), st.booleans())
def test_attention_is_its_formula(batch: int, heads: int, tokens: int, others: int, gradients: bool) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(batch, tokens, 4 * heads), *torch.randn(2, batch, others, 4 * heads)
    mask = torch.rand(batch, others) < 0.7
    mask[:, 0] = True
    with torch.set_grad_enabled(gradients):
        assert torch.allclose(attend(q, k, v, heads, mask).double(), plainly(q, k, v, heads, mask), atol=1e-5)
        everyone = torch.ones_like(mask)
        assert torch.allclose(attend(q, k, v, heads).double(), plainly(q, k, v, heads, everyone), atol=1e-5)


@pytest.mark.parametrize("inference", [False, True])
def test_where_no_token_counts_nothing_is_found(inference: bool) -> None:
    layer = scramble(CrossAttention(8, 5, heads=2))
    told = Condition(context=torch.randn(2, 3, 5), context_mask=torch.tensor([[False] * 3, [True] * 3]))
    with torch.inference_mode(inference):
        out = layer(torch.randn(2, 4, 8), told)
        assert torch.allclose(out[0], layer.proj.bias.expand(4, 8), atol=1e-6)
        assert not torch.allclose(out[1], layer.proj.bias.expand(4, 8), atol=1e-2)


def prepared(layer: CrossAttention, told: Condition) -> Condition:
    assert told.context is not None
    return replace(told, projected=layer.project(told.context))


@pytest.mark.parametrize(("inference", "width"), [(False, {"it": 32}), (True, {"it.keys": 32, "it.values": 32})])
def test_what_was_projected_before_is_used_and_joined_as_tokens_are(inference: bool, width: dict[str, int]) -> None:
    layer = scramble(CrossAttention(16, 5, heads=2, name="it"))
    first, second = Condition(context=torch.randn(1, 3, 5)), Condition(context=torch.randn(1, 4, 5))
    x = torch.randn(1, 6, 16)
    expected = layer(x, first | second)
    with torch.inference_mode(inference):
        once, more = prepared(layer, first), prepared(layer, second)
        assert torch.allclose(layer(x, once | more), expected, atol=1e-6)
        assert {name: made.shape for name, made in (once | more).projected.items()} == {
            name: (1, 7, columns) for name, columns in width.items()
        }
        assert torch.allclose(layer(x, once | second), expected, atol=1e-6)
        assert not (once | second).projected
        assert torch.equal(layer(x, once | Condition(vector=x)), layer(x, once))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.booleans(), st.booleans())
def test_a_short_context_needs_no_queries(batch: int, heads: int, count: int, masked: bool, gradients: bool) -> None:
    torch.manual_seed(0)
    layer = scramble(CrossAttention(16 * heads, 5, heads=heads, name="it"))
    mask = torch.rand(batch, count) < 0.5 if masked else None
    told = Condition(context=torch.randn(batch, count, 5), context_mask=mask)
    x, plus = torch.randn(2, batch, 7, 16 * heads)
    expected = layer(x, told, plus)
    with torch.no_grad():
        known = prepared(layer, told)
    assert set(known.projected) == {"it.keys", "it.values"}
    layer.q.weight.data.fill_(torch.nan)
    with torch.set_grad_enabled(gradients):
        out = layer(x.requires_grad_(gradients), known, plus)
    assert torch.allclose(out, expected, atol=1e-5)
    if gradients:
        (grad,) = torch.autograd.grad(out.square().sum(), x)
        assert grad.isfinite().all()


def test_a_short_context_in_bfloat16() -> None:
    layer = scramble(CrossAttention(64, 5, heads=2, name="it"))
    x, told = torch.randn(2, 7, 64), Condition(context=torch.randn(2, 9, 5))
    expected = layer(x, told)
    with torch.inference_mode():
        low = layer.bfloat16()(x.bfloat16(), prepared(layer, told))
    assert low.dtype == torch.bfloat16
    assert (low - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(("batch", "count", "short"), [(1, 4, True), (1, 5, False), (2, 4, True), (3, 3, False)])
def test_a_context_is_short_if_it_halves_the_work_and_takes_no_more_than_the_weights(
    batch: int, count: int, short: bool
) -> None:
    layer = CrossAttention(24, 5, heads=3, name="it")
    with torch.inference_mode():
        made = layer.project(torch.randn(batch, count, 5))
        low = layer.bfloat16().project(torch.randn(batch, count, 5))
        with torch.autocast("cpu", torch.bfloat16):
            assert set(layer.project(torch.randn(batch, count, 5))) == {"it"}
    assert (set(made) == {"it.keys", "it.values"}) == short
    assert all(each.dtype == torch.bfloat16 for each in low.values())
    numbers = sum(each.numel() for each in made.values())
    assert numbers <= layer.q.weight.numel() + layer.proj.weight.numel()


def test_no_context_is_told() -> None:
    with pytest.raises(ValueError, match="no context"):
        CrossAttention(8, 5, heads=2)(torch.randn(1, 2, 8), Condition())


@pytest.mark.parametrize("heads", [3, 16])
def test_heads_that_cannot_share_are_refused(heads: int) -> None:
    with pytest.raises(ValueError, match=f"{heads} heads cannot share 8"):
        CrossAttention(8, 5, heads=heads)


def test_the_feed_forward_layer_is_gated_by_the_second_half() -> None:
    layer, x = scramble(FeedForward(6)), torch.randn(2, 3, 6)
    value, gate = (x @ layer.expand.weight.T + layer.expand.bias).chunk(2, -1)
    erf = gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
    assert torch.allclose(layer(x), (value * erf) @ layer.contract.weight.T + layer.contract.bias, atol=1e-5)


@pytest.mark.parametrize("gradients", [True, False])
def test_the_feed_forward_layer_drops_out_what_is_gated_in_training_alone(gradients: bool) -> None:
    layer, x = scramble(FeedForward(6, 24, dropout=0.25)), torch.randn(40, 6)
    layer.contract.weight.data, layer.contract.bias.data = torch.eye(24), torch.zeros(24)
    with torch.set_grad_enabled(gradients):
        kept, out = layer.eval()(x), layer.train()(x)
    dropped = out == 0
    assert dropped.float().mean() == pytest.approx(0.25, abs=0.06)  # four standard deviations
    assert torch.allclose(out, (kept / 0.75).masked_fill(dropped, 0.0), atol=1e-6)


def test_a_transformer_starts_as_the_identity() -> None:
    layer = SpatialTransformer(8, 5, heads=2, depth=2)
    h, told = torch.randn(2, 8, 4, 6), Condition(context=torch.randn(2, 3, 5))
    assert torch.equal(layer(h, told), h)
    assert not torch.allclose(scramble(layer)(h, told), h, atol=1e-2)
    assert [m.name for m in layer.modules() if isinstance(m, CrossAttention)] == ["cross.0", "cross.1"]


def test_a_block_is_three_residual_branches_in_order() -> None:
    block = scramble(TransformerBlock(8, 5, heads=2))
    x, told = torch.randn(2, 4, 8), Condition(context=torch.randn(2, 3, 5))
    y = x + block.attend(block.norm1(x))
    y = y + block.cross(block.norm2(y), told)
    assert torch.allclose(block(x, told), y + block.feed(block.norm3(y)), atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("added", [True, False])
def test_the_linear_layer_is_torch_s(bias: bool, added: bool) -> None:
    layer, x, plus = Linear(6, 10, bias=bias), torch.randn(3, 4, 6), torch.randn(3, 4, 10) if added else None
    expected = functional.linear(x, layer.weight, layer.bias) + (0 if plus is None else plus)
    assert torch.allclose(layer(x, plus), expected, atol=1e-6)
    with torch.inference_mode():
        assert torch.allclose(layer(x, plus), expected, atol=1e-6)
        assert torch.allclose(layer(x.mT.contiguous().mT, plus), expected, atol=1e-6)
        low, summand = layer.bfloat16(), None if plus is None else plus.bfloat16()
        assert low(x.bfloat16(), summand).dtype == torch.bfloat16
        assert (low(x.bfloat16(), summand) - expected).norm() < 0.02 * expected.norm()
        with torch.autocast("cpu", torch.bfloat16):
            assert low(x).dtype == torch.bfloat16


@pytest.mark.parametrize("added", [True, False])
def test_feeding_tokens_forward_in_inference_is_doing_it_in_training(added: bool) -> None:
    layer, x, plus = scramble(FeedForward(6)), torch.randn(2, 9, 6), torch.randn(2, 9, 6) if added else None
    expected = layer(x, plus)
    with torch.inference_mode():
        assert torch.allclose(layer(x, plus), expected, atol=1e-5)


@pytest.mark.parametrize("most_kept", [0, 1 << 24])
@pytest.mark.parametrize("items", [1, 2])
def test_a_block_in_parts_is_the_block_at_once(monkeypatch: pytest.MonkeyPatch, items: int, most_kept: int) -> None:
    block = scramble(TransformerBlock(8, 5, heads=2))
    mask = torch.tensor([[True, True, False], [True, False, True]])
    x, told = torch.randn(items, 9, 8), Condition(context=torch.randn(2, 3, 5), context_mask=mask)
    expected = block(x, told)
    assert expected.shape == (2, 9, 8)  # branches share the tokens where there is one item
    monkeypatch.setattr("diffloom_nets.transformer._MOST_KEPT", most_kept)
    monkeypatch.setattr("diffloom_nets.transformer._FEWEST", 1)
    monkeypatch.setattr("diffloom_nets.attention._FAR", 4)
    for piece in (1, 4, 18, 1024):
        monkeypatch.setattr("diffloom_nets.transformer._PIECE", piece)
        with torch.inference_mode():
            first, second = block(x, told), block(2 * x, told)
            assert torch.allclose(first, expected, atol=1e-5)
        assert torch.allclose(second, block(2 * x, told), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_and_values_of_many_tokens_are_those_of_every_head(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("diffloom_nets.attention._FAR", 4)
    q, (k, v) = torch.randn(2, 3, 8), torch.randn(2, 2, 7, 8)
    mask = torch.rand(2, 7) < 0.7
    mask[:, 0] = True
    with torch.inference_mode():
        found = attend(q.to(dtype), k.to(dtype), v.to(dtype), 2, mask)
    expected = plainly(q, k, v, 2, mask)
    assert found.dtype == dtype
    assert (found.double() - expected).norm() < (1e-5 if dtype == torch.float32 else 0.02) * expected.norm()


@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 150), st.integers(1, 9))
def test_attention_in_blocks_is_its_formula(batch: int, heads: int, tokens: int, others: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(batch, heads, tokens, 4), *torch.randn(2, batch, heads, others, 4)
    expected = torch.softmax(q.double() @ k.double().mT / 2, -1) @ v.double()
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffloom_nets.attention._MOST_SCORES", 1)
        assert torch.allclose(blockwise(q, k, v).double(), expected.transpose(1, 2).flatten(2), atol=1e-5)


def test_attention_in_bfloat16_stays_bfloat16() -> None:
    q, k, v = torch.randn(3, 2, 5, 8)
    with torch.inference_mode():
        low = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), 2)
        assert low.dtype == torch.bfloat16
        assert (low - attend(q, k, v, 2)).norm() < 0.02 * attend(q, k, v, 2).norm()
