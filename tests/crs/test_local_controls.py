"""The side network: published sizes and shapes, the identity at the start, and what moves what."""

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor

from diffloom.condition import Condition
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom_crs.local_controls import LocalControls
from diffloom_unet import UNet
from tests.crs.parts import KEYS, SD1, SPACE, STRIDE, T, controls, latents, maps, network, shaken, told, x_t

SKIPS = [("skip.0", 320), ("skip.1", 320), ("skip.2", 320), ("skip.3", 320), ("skip.4", 640), ("skip.5", 640)]
SKIPS += [("skip.6", 640)] + [(f"skip.{n}", 1280) for n in range(7, 12)] + [("mid", 1280)]
NORMS = [320, 320, 320, 640, 640, 1280, 1280, 1280]  # channels of those that look at the maps


def said(part: LocalControls, batch: dict[str, Any], given: Condition | None = None) -> dict[str, Tensor]:
    edits = part(part.encode(batch), x_t(), T, told() if given is None else given).affine
    return {name: edit.shift for name, edit in edits.items()}


def full(**changes: Any) -> LocalControls:
    with torch.device("meta"):
        net = UNet(space=SPACE.__class__(4, (64, 64)), **SD1)
        return LocalControls(denoiser=net, autoencoder=latents(4, 8), space=net.space, **changes)


def count(part: torch.nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


def test_thirteen_shifts_of_the_published_shapes() -> None:
    part = full()
    assert list(part.gives.affine.items()) == SKIPS
    given = Condition(context=torch.empty(1, 81, 768, device="meta"))
    code = part.encode({"item": torch.arange(1)})
    assert code["maps"].shape == (1, 18, 512, 512)
    edits = part(code, torch.empty(1, 4, 64, 64, device="meta"), T.to("meta"), given).affine
    sides = [64] * 3 + [32] * 3 + [16] * 3 + [8] * 4
    got = [None if edit.shift is None else tuple(edit.shift.shape[1:]) for edit in edits.values()]
    assert got == [(channels, side, side) for (_, channels), side in zip(SKIPS, sides, strict=True)]


def test_the_number_of_parameters_is_that_of_the_published_layers() -> None:
    part = full()
    levels = [192, 192, 256, 256, 384, 384, 512, 512]
    fused = sum(2 * (9 * f * c + c) for f, c in zip(levels, NORMS, strict=True))
    looks = sum(2 * (c * c // 8 + c // 8) + c * c + c for c in NORMS)
    path = [18, 32, 64, 64, 128, 128, 192, 256, 384, 512]
    features = sum(9 * a * b + b for a, b in pairwise(path))
    features += sum(9 * w * w + w for w in (192, 256, 384, 512))
    assert count(part.copy) == 348_712_960 - 2 * sum(NORMS)  # ControlNet's copy without the norms that are replaced
    assert count(part.shifts) == 11_479_680
    assert count(part.extractor) == features == 8_210_528
    assert count(part.fusions) == fused + looks
    assert count(part) == 419_462_288
    assert count(full(fusion="denormalise")) == 419_462_288 - looks


@torch.no_grad()
def test_a_new_side_network_changes_nothing_for_any_pattern_of_maps() -> None:
    net = network()
    part = controls(net)
    patterns = torch.tensor(list(product((False, True), repeat=6)))
    code = part.encode(maps(64))
    code = {"maps": torch.where(patterns[:, :, None, None], code["maps"], 0.0), "there": patterns}
    x, given = torch.randn(64, 2, 8, 8), told(64)
    edits = part(code, x, T, given)
    assert not any(edit.shift is None or edit.shift.any() for edit in edits.affine.values())
    assert torch.equal(net(x, T, given | edits), net(x, T, given))
    shaken(part)
    assert not torch.allclose(net(x, T, given | part(code, x, T, given)), net(x, T, given), atol=1e-2)


@torch.no_grad()
def test_every_map_moves_every_shift_behind_the_first_convolution() -> None:
    part = shaken(controls(network()))
    batch = maps()
    whole = said(part, batch)
    for key in KEYS:
        without = said(part, {name: value for name, value in batch.items() if name != key})
        assert [name for name in whole if torch.equal(whole[name], without[name])] == ["skip.0"], key


@torch.no_grad()
def test_the_copy_hears_the_context_and_never_the_vector() -> None:
    part = shaken(controls(network()))
    batch, given, other = maps(), told(), told(seed=4)
    plain = said(part, batch, given)
    deaf = said(part, batch, replace(given, vector=other.vector))
    heard = said(part, batch, replace(given, context=other.context))
    masked = said(part, batch, replace(given, context_mask=torch.tensor([[True] * 4 + [False]] * 2)))
    assert all(torch.equal(plain[name], deaf[name]) for name in plain)
    assert all(not torch.equal(plain[name], heard[name]) for name in list(plain)[1:])
    assert any(not torch.equal(plain[name], masked[name]) for name in plain)


@torch.no_grad()
def test_the_copy_begins_with_the_denoisers_weights() -> None:
    net = network()
    part = controls(net, fusion="add", widths=(8,))
    ours, theirs = part.copy.state_dict(), net.state_dict()
    assert {key for key in ours if not torch.equal(ours[key], theirs[key][: len(ours[key])])} == set()
    for parameter in net.parameters():
        parameter.zero_()
    assert any(value.any() for value in part.copy.state_dict().values())


@torch.no_grad()
@pytest.mark.parametrize("index", [0, 2, 4])
def test_a_shift_is_linear_in_its_scale_and_0_is_off(index: int) -> None:
    net, batch = network(), maps()
    scales = [1.0, 0.5, 2.0, 1.0, 1.0]
    other = [value * 3 if n == index else value for n, value in enumerate(scales)]
    one, three = (said(shaken(controls(net, scale=scale)), batch) for scale in (scales, other))
    for n, name in enumerate(one):
        torch.testing.assert_close(three[name], one[name] * (3 if n == index else 1))
    off = shaken(controls(net, scale=0.0))
    edits = off(off.encode(batch), x_t(), T, told())
    assert torch.equal(net(x_t(), T, told() | edits), net(x_t(), T, told()))


@torch.no_grad()
@pytest.mark.parametrize(
    "changes", [{}, {"fusion": "denormalise", "presence": True}, {"fusion": "add", "widths": (8,)}]
)
def test_what_is_prepared_once_says_the_same(changes: dict[str, Any]) -> None:
    part = shaken(controls(network(), **changes))
    code, given = part.encode(maps()), told()
    plain, prepared = (part(one, x_t(), T, given).affine for one in (code, part.prepare(code, given)))
    for name, edit in plain.items():
        torch.testing.assert_close(prepared[name].shift, edit.shift)
    more = given | Condition(context=torch.randn(2, 2, 6))  # said by somebody who is asked at every step
    late, fresh = (part(one, x_t(), T, more).affine for one in (part.prepare(code, given), code))
    for name, edit in fresh.items():
        torch.testing.assert_close(late[name].shift, edit.shift)


@torch.no_grad()
def test_maps_of_another_size_are_brought_to_that_of_what_is_diffused() -> None:
    part = shaken(controls(network()))
    small = maps(side=16)
    large = {key: value.repeat_interleave(2, 2).repeat_interleave(2, 3) for key, value in small.items()}
    code = part.prepare(part.encode(small), told())
    for name, shift in said(part, large).items():
        torch.testing.assert_close(part(code, x_t(), T, told()).affine[name].shift, shift)
    nothing = part.encode({"item": torch.arange(2)})
    wide = part(nothing, torch.randn(2, 2, 8, 16), T, told()).affine["skip.0"].shift
    assert wide.shape == (2, 16, 8, 16)


@torch.no_grad()
def test_nothing_said_is_no_map_at_all() -> None:
    part = controls(network())
    null, absent = part.null(part.encode(maps())), part.encode({"item": torch.arange(2)})
    assert all(torch.equal(null[key], absent[key]) for key in absent)


def test_training_hides_maps_and_leaves_the_code_as_it_was() -> None:
    part = controls(network(), keep_all=0.0, drop_all=0.5).train()
    code = part.encode(maps(400))
    kept = code["maps"].clone()
    hidden = part.hide(code, Noise(range(400)))
    assert torch.equal(code["maps"], kept)
    assert 0.45 < float((~hidden["there"]).all(1).float().mean()) < 0.6
    assert torch.equal(hidden["maps"].flatten(2).any(2), hidden["there"])


def test_gradients_reach_the_shifts_first_then_the_copy_then_the_maps() -> None:
    net = network()
    net.requires_grad_(False)
    part = controls(net)
    optimizer = torch.optim.SGD(part.parameters(), lr=0.1)

    def reached() -> set[str]:
        optimizer.zero_grad()
        code = part.encode(maps())
        net(x_t(), T, told() | part(code, x_t(), T, told())).square().mean().backward()
        moved = {name for name, p in part.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
        return moved

    shifts = {name for name, _ in part.named_parameters() if name.startswith("shifts.")}
    leave = {name for name, _ in part.named_parameters() if name.startswith("extractor.leave.")}
    before = {name for name, _ in part.named_parameters() if name.startswith("extractor.") and name not in leave}
    everything = {name for name, _ in part.named_parameters() if not name.endswith("attention.key.bias")}  # softmax
    assert reached() == shifts
    second = reached()
    assert second >= shifts | leave
    assert not second & before
    assert reached() >= everything
    assert all(p.grad is not None for p in part.parameters()), "a weight is never used"


def test_files_of_the_release_are_read() -> None:
    part = shaken(controls(network(context=6, attention=(8, 4), blocks=2, vector=0)))
    layout, linear = part.layouts()
    assert (layout.name, linear.name) == ("crs-diff", "crs-diff-linear")
    stored = layout.write(part.state_dict())
    assert all(torch.equal(value, part.state_dict()[key]) for key, value in layout.read(stored).items())
    assert set(layout.read(stored)) == set(part.state_dict())
    shapes = {
        "local_adapter.time_embed.0.weight": (64, 16),
        "local_adapter.input_blocks.0.0.weight": (16, 2, 3, 3),
        "local_adapter.input_blocks.1.0.norm_in.fdn.conv_gamma.weight": (16, 8, 3, 3),
        "local_adapter.input_blocks.1.0.norm_out.attention.query_conv.weight": (2, 16, 1, 1),
        "local_adapter.input_blocks.1.0.in_layers.2.weight": (16, 16, 3, 3),
        "local_adapter.input_blocks.1.0.out_layers.3.weight": (16, 16, 3, 3),
        "local_adapter.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (16, 6),
        "local_adapter.input_blocks.2.0.in_layers.0.weight": (16,),
        "local_adapter.input_blocks.4.0.norm_in.fdn.conv_beta.weight": (16, 12, 3, 3),
        "local_adapter.input_blocks.4.0.norm_out.fdn.conv_beta.weight": (32, 12, 3, 3),
        "local_adapter.feature_extractor.pre_extractor.8.weight": (8, 8, 3, 3),
        "local_adapter.feature_extractor.extractors.1.0.weight": (12, 8, 3, 3),
        "local_adapter.feature_extractor.zero_convs.1.weight": (12, 12, 3, 3),
        "local_adapter.zero_convs.5.0.weight": (32, 32, 1, 1),
        "local_adapter.middle_block.0.in_layers.0.weight": (32,),
        "local_adapter.middle_block_out.0.weight": (32, 32, 1, 1),
    }
    assert {key: tuple(stored[key].shape) for key in shapes} == shapes
    assert "local_adapter.input_blocks.1.0.in_layers.0.weight" not in stored
    uni = controls(network(vector=0), fusion="denormalise")
    assert "local_adapter.input_blocks.1.0.norm_in.conv_gamma.weight" in uni.layouts()[0].write(uni.state_dict())
    assert not controls(network(vector=0), fusion="add", widths=(8,)).layouts()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (8,)}, "2 widths, got 8; with `fusion: add` it is one"),
        ({"fusion": "add"}, "1 widths, got 8, 12"),
        ({"scale": [1.0, 2.0]}, "expected 5 numbers, got 2"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(IncompatibleParts, match=message):
        controls(network(), **changes)


def test_a_denoiser_without_the_taps_is_refused() -> None:
    from diffloom.testing.standins import TinyDenoiser

    with pytest.raises(IncompatibleParts, match=r"taps skip.…, mid and norm.down"):
        LocalControls(denoiser=TinyDenoiser(space=SPACE), autoencoder=latents(stride=STRIDE), space=SPACE)
