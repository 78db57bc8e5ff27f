"""Noise that belongs to places, and bands in groups: what every block of a large image rests on."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffloom.noise import Noise
from diffloom_stablesr import bands
from diffloom_stablesr.placed import Placed


@settings(deadline=None, max_examples=30)
@given(top=st.integers(0, 90), left=st.integers(0, 90), height=st.integers(1, 50), width=st.integers(1, 50))
def test_two_windows_draw_the_same_where_they_overlap(top: int, left: int, height: int, width: int) -> None:
    whole = Placed([3, 3, 4], scope=("a",)).normal(torch.empty(3, 2, 140, 140), "step", 5)
    part = Placed([3, 3, 4], scope=("a",), corner=(top, left)).normal(torch.empty(3, 2, height, width), "step", 5)
    assert torch.equal(part, whole[..., top : top + height, left : left + width])
    assert torch.equal(part[0], part[1])
    assert not torch.equal(part[0], part[2])


def test_it_is_normal_and_independent_between_keys_scopes_and_places() -> None:
    like = torch.empty(1, 1, 256, 256)
    noise = Placed([0])
    draws = [noise.normal(like, "a"), noise.normal(like, "b"), noise.within("x").normal(like, "a")]
    for draw in draws:
        assert abs(float(draw.mean())) < 0.02
        assert abs(float(draw.std()) - 1) < 0.02
    for one, other in ((draws[0], draws[1]), (draws[0], draws[2]), (draws[0][..., :32], draws[0][..., 32:64])):
        assert abs(float((one * other).mean())) < 0.05
    assert isinstance(noise[:1].within("x"), Placed)


def test_what_is_no_map_is_drawn_as_ever() -> None:
    like = torch.empty(2, 5)
    assert torch.equal(Placed([1, 2], corner=(7, 7)).normal(like, "k"), Noise([1, 2]).normal(like, "k"))


@given(count=st.integers(1, 14), width=st.integers(1, 5))
def test_every_band_comes_back_once(count: int, width: int) -> None:
    image = torch.rand(count, 2, 2)
    grouped = bands.groups(range(count), width)
    assert {len(group) for group in grouped} == {width}
    assert torch.equal(bands.joined(bands.cut(image, grouped), grouped, count), image)


def test_groups_are_threes_and_the_last_ends_with_the_last_band() -> None:
    assert bands.groups(range(8), 3) == [(0, 1, 2), (3, 4, 5), (5, 6, 7)]
    assert bands.groups([0, 1], 3) == [(0, 1, 1)]
    assert bands.groups([0, 1, 2], 3) == [(0, 1, 2)]
    answers = torch.arange(9.0).view(3, 3, 1, 1)
    assert bands.joined(answers, bands.groups(range(8), 3), 8).flatten().tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
