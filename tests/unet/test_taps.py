"""The law of taps: nothing edited, nothing read: not a bit changes."""

from collections.abc import Iterator

import pytest
import torch

from diffloom.condition import Affine, Condition
from diffloom.errors import IncompatibleParts
from tests.unet.test_unet import small

NET = small()
NAMES = [tap.name for tap in NET.taps]
X, T = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])


@pytest.fixture(params=[False, True], ids=["gradients", "inference"], autouse=True)
def _mode(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.inference_mode(request.param):
        yield


def test_taps_are_named_as_they_are_computed() -> None:
    assert NAMES == [
        "skip.0",
        "res.down.0",
        "skip.1",
        "skip.2",
        "res.down.1",
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
    zero = {name: Affine(torch.zeros_like(maps[name]), torch.zeros_like(maps[name])) for name in NAMES}
    assert torch.equal(NET(X, T, Condition(affine=zero)), plain)
    assert torch.equal(NET(X, T, Condition()), plain)


@pytest.mark.parametrize("name", NAMES)
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


def test_an_unknown_tap_is_refused_with_the_nearest() -> None:
    with pytest.raises(IncompatibleParts, match=r"got 'up\.9'.*did you mean 'up\."):
        NET(X, T, read=["up.9"])
    with pytest.raises(IncompatibleParts, match="got 'middle'"):
        NET(X, T, Condition(affine={"middle": Affine(shift=torch.tensor(1.0))}))
