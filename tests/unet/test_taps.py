"""The law of taps: nothing edited, nothing read: not a bit changes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from diffloom.condition import Affine, Condition
from diffloom.errors import IncompatibleParts
from diffloom.space import Space
from diffloom_unet import UNet
from tests.unet.parity import SD1, layout_of
from tests.unet.test_unet import small

NET = small()
NAMES = [tap.name for tap in NET.taps]
ADDING = [tap.name for tap in NET.taps if not tap.replaces]
X, T = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])


@pytest.fixture(params=[False, True], ids=["gradients", "inference"], autouse=True)
def _mode(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.inference_mode(request.param):
        yield


def test_taps_are_named_as_they_are_computed() -> None:
    assert [name for name in NAMES if not name.startswith("norm.")] == [
        "down.0",
        "skip.0",
        "res.down.0",
        "down.1",
        "skip.1",
        "down.2",
        "skip.2",
        "res.down.1",
        "down.3",
        "skip.3",
        "res.mid.0",
        "res.mid.1",
        "mid",
        "res.up.0",
        "up.0",
        "res.up.1",
        "up.1",
        "res.up.2",
        "up.2",
        "res.up.3",
        "up.3",
    ]


def test_taps_have_the_shapes_they_declare_and_can_be_edited() -> None:
    _, maps = NET(X, T, read=NAMES)
    assert list(maps) == NAMES
    for tap in NET.taps:
        assert maps[tap.name].shape == (2, tap.channels, 16 // tap.stride, 16 // tap.stride)
    assert NET.ports.affine == {tap.name: tap.channels for tap in NET.taps}


def test_reading_and_neutral_edits_change_no_bit() -> None:
    plain = NET(X, T)
    out, maps = NET(X, T, read=NAMES)
    assert torch.equal(out, plain)
    zero = {name: Affine(torch.zeros_like(maps[name]), torch.zeros_like(maps[name])) for name in ADDING}
    assert torch.equal(NET(X, T, Condition(affine=zero)), plain)
    assert torch.equal(NET(X, T, Condition()), plain)


@pytest.mark.parametrize("name", ADDING)
def test_an_edit_is_heard_and_read_back(name: str) -> None:
    plain, maps = NET(X, T, read=[name])
    kept = maps[name].clone()
    scale, shift = torch.tensor(0.5), torch.randn(2, kept.shape[1], 1, 1)
    out, edited = NET(X, T, Condition(affine={name: Affine(scale, shift)}), read=[name])
    assert not torch.allclose(out, plain, atol=1e-4)
    assert torch.allclose(edited[name], 1.5 * kept + shift, atol=1e-5)
    assert torch.equal(NET(X, T), plain)
    assert torch.equal(maps[name], kept)


def test_an_edited_skip_leaves_the_way_down_alone() -> None:
    edit = Condition(affine={"skip.1": Affine(shift=torch.tensor(3.0))})
    later = ["skip.2", "skip.3", "mid"]
    _, plain = NET(X, T, read=later)
    _, edited = NET(X, T, edit, read=[*later, "up.3"])
    assert all(torch.equal(plain[name], edited[name]) for name in later)


def test_an_edit_on_the_way_down_goes_on_and_is_the_skip() -> None:
    edit = Condition(affine={"down.1": Affine(shift=torch.tensor(3.0))})
    names = ["down.0", "down.1", "skip.1", "down.2"]
    _, plain = NET(X, T, read=names)
    _, edited = NET(X, T, edit, read=names)
    assert torch.equal(plain["down.0"], edited["down.0"])
    assert torch.equal(edited["skip.1"], plain["down.1"] + 3)
    assert torch.equal(edited["down.1"], edited["skip.1"])
    assert torch.equal(edited["down.2"], NET.down[1](plain["down.1"] + 3))


def test_an_edit_of_a_normalisation_stands_in_its_place() -> None:
    block: Any = NET.down[0].block
    taps = [tap for tap in NET.taps if tap.name.startswith("norm.")]
    assert [tap.name for tap in taps][:4] == ["norm.down.0.0", "norm.down.0.1", "norm.down.1.0", "norm.down.1.1"]
    assert all(tap.replaces for tap in taps)
    for index, norm in enumerate((block.norm1, block.norm2)):
        own = Affine(scale=norm.weight[:, None, None] - 1, shift=norm.bias[:, None, None], groups=norm.num_groups)
        out, maps = NET(X, T, Condition(affine={f"norm.down.0.{index}": own}), read=["down.0", f"norm.down.0.{index}"])
        torch.testing.assert_close(out, NET(X, T), rtol=0, atol=1e-3)  # the edit's eps is 1e-5, the norm's 1e-6
        if index == 0:
            torch.testing.assert_close(maps["norm.down.0.0"], norm(maps["down.0"]), rtol=0, atol=1e-3)
    other = NET(X, T, Condition(affine={"norm.down.0.0": Affine(groups=4)}))
    assert not torch.allclose(other, NET(X, T), atol=1e-3)


def test_an_edit_that_changes_nothing_leaves_the_map_before_a_normalisation_alone() -> None:
    _, plain = NET(X, T, read=["down.0"])
    _, edited = NET(X, T, Condition(affine={"norm.down.0.0": Affine()}), read=["down.0", "norm.down.0.0"])
    assert torch.equal(edited["down.0"], plain["down.0"])
    assert torch.equal(edited["norm.down.0.0"], plain["down.0"])


def test_time_modulates_what_stands_in_the_place_of_a_normalisation() -> None:
    net = small(scale_shift=True)
    block: Any = net.down[0].block
    norm = block.norm2
    own = Affine(scale=norm.weight[:, None, None] - 1, shift=norm.bias[:, None, None], groups=norm.num_groups)
    told = Condition(affine={"norm.down.0.1": own})
    torch.testing.assert_close(net(X, T, told), net(X, T), rtol=0, atol=1e-3)


@pytest.mark.parametrize("config", [{}, {"context": 6}, {"resampling": "residual"}], ids=["plain", "told", "residual"])
def test_a_copy_until_the_middle_is_half_of_the_network_and_trains(config: dict[str, Any]) -> None:
    net = small(**config).requires_grad_(False)
    context = torch.randn(2, 3, 6) if config.get("context") else None
    part = net.until("mid")
    wanted = {name.partition(".")[0] for name, _ in net.named_parameters()} - {"up", "norm", "head"}
    assert {name.partition(".")[0] for name, _ in part.named_parameters()} == wanted
    read = [tap.name for tap in part.taps]
    assert read[-1] == "mid"
    assert read == [tap.name for tap in net.taps][: len(read)]
    out, maps = part(X, T, Condition(context=context), read=read)
    _, expected = net(X, T, Condition(context=context), read=read)
    assert all(torch.equal(maps[name], expected[name]) for name in read)
    assert torch.equal(out, maps["mid"])
    assert all(p.requires_grad for p in part.parameters())
    assert not any(p.requires_grad for p in net.parameters())
    whole = net.until("up.0")
    assert torch.equal(whole(X, T, Condition(context=context)), net(X, T, Condition(context=context)))


def test_a_copy_of_stable_diffusion_until_the_middle_has_the_published_size() -> None:
    with torch.device("meta"):
        part = UNet(space=Space(4, (64, 64)), **SD1).until("mid")
    assert sum(p.numel() for p in part.parameters()) == 348_712_960
    keys = layout_of(part).write(part.state_dict()).keys()
    assert len(keys) == 340 - 2 * 8 - 2 * 13  # a ControlNet's tensors without its hint encoder and zero convolutions
    assert {key.partition(".")[0] for key in keys} == {"conv_in", "time_embedding", "down_blocks", "mid_block"}


def test_an_unknown_tap_is_refused_with_the_nearest() -> None:
    with pytest.raises(IncompatibleParts, match=r"got 'up\.9'.*did you mean 'up\."):
        NET(X, T, read=["up.9"])
    with pytest.raises(IncompatibleParts, match="got 'middle'"):
        NET(X, T, Condition(affine={"middle": Affine(shift=torch.tensor(1.0))}))
