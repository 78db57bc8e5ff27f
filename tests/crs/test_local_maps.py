"""Maps, their features and how these enter a residual block: orders, shapes, formulas and odds of the papers."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diffloom.condition import Affine
from diffloom.errors import DataError, IncompatibleParts
from diffloom.noise import Noise, mix
from diffloom_crs.features import FeatureExtractor
from diffloom_crs.fusion import Fusion, PositionAttention
from diffloom_crs.local_controls import CRS_DIFF
from diffloom_crs.maps import drawn, kept, stacked, with_presence
from tests.crs.parts import shaken

CPU = torch.device("cpu")
SIZE = (16, 16)


def numbered(keys: Sequence[str] = tuple(CRS_DIFF)) -> dict[str, Tensor]:
    return {key: torch.full((2, 3, *SIZE), (list(CRS_DIFF).index(key) + 1) / 10) for key in keys}


# --- the stack -------------------------------------------------------------------------------------------------------


def test_every_map_has_its_three_channels_in_the_order_of_the_recipe() -> None:
    code = stacked(numbered(tuple(reversed(CRS_DIFF))), CRS_DIFF, SIZE, CPU)
    assert code["maps"].shape == (2, 18, *SIZE)
    wanted = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).repeat_interleave(3)
    assert torch.equal(code["maps"], wanted[:, None, None].expand(2, 18, *SIZE))
    assert code["there"].all()


def test_an_absent_map_is_0_and_so_are_all_of_them_where_there_is_none() -> None:
    code = stacked(numbered(("hed", "depth")), CRS_DIFF, SIZE, CPU)
    assert code["there"].tolist() == [[False, True, False, False, True, False]] * 2
    assert code["maps"].amax((0, 2, 3)).tolist() == pytest.approx([0] * 3 + [0.2] * 3 + [0] * 6 + [0.5] * 3 + [0] * 3)
    nothing = stacked({"item": torch.arange(2)}, CRS_DIFF, SIZE, CPU)
    assert nothing["maps"].shape == (2, 18, *SIZE)
    assert not nothing["maps"].any()
    assert not nothing["there"].any()


def test_a_map_of_one_channel_is_repeated() -> None:
    grey = torch.rand(2, *SIZE)
    for given in (grey, grey[:, None]):
        assert torch.equal(
            stacked({"hed": given}, CRS_DIFF, SIZE, CPU)["maps"][:, 3:6], grey[:, None].expand(2, 3, *SIZE)
        )


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"hed": torch.zeros(2, 4, *SIZE)}, r"expected real numbers in \[0, 1\], \(B, 3, H, W\)"),
        ({"segmentation": torch.zeros(2, 1, *SIZE, dtype=torch.int64)}, "not the map that was announced"),
        ({"hed": torch.zeros(2, 3, 8, 8), "road": torch.zeros(2, 3, *SIZE)}, "hed 8×8, road 16×16"),
    ],
)
def test_other_maps_than_announced_are_refused(batch: dict[str, Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        stacked(batch, CRS_DIFF, SIZE, CPU)


def test_a_channel_more_tells_an_empty_map_from_an_absent_one() -> None:
    empty = {"hed": torch.zeros(2, 3, *SIZE)}
    absent = stacked({"item": torch.arange(2)}, CRS_DIFF, SIZE, CPU)
    code = stacked(empty, CRS_DIFF, SIZE, CPU)
    assert torch.equal(code["maps"], absent["maps"])
    assert with_presence(code)[:, 18:].amax((0, 2, 3)).tolist() == [0, 1, 0, 0, 0, 0]
    assert not with_presence(absent).any()


# --- what training shows ---------------------------------------------------------------------------------------------


class Bulk(Noise):
    """Noise that is drawn for all items at once: quick, where no item needs a stream of its own."""

    def uniform(self, like: Tensor, *key: Any) -> Tensor:
        return torch.rand(like.shape, generator=torch.Generator().manual_seed(mix(*key)))


def test_one_draw_decides_whether_all_none_or_some_maps_are_shown() -> None:
    """0.1 + 0.8 · Π p and 0.1 + 0.8 · Π (1 − p) with p = 0.6 and five times 0.5."""
    keep = drawn(Bulk(range(100_000)), CRS_DIFF, 0.1, 0.1)
    assert float((~keep).all(1).float().mean()) == pytest.approx(0.115, abs=0.004)
    assert float(keep.all(1).float().mean()) == pytest.approx(0.110, abs=0.004)
    shares = keep.float().mean(0)
    torch.testing.assert_close(shares, torch.tensor([0.42, 0.5, 0.5, 0.5, 0.5, 0.5]), atol=0.006, rtol=0)
    rows = (keep.long() * 2 ** torch.arange(6)).sum(1).bincount(minlength=64) / len(keep)
    assert float(rows[1:-1].min()) > 0.007, "some pattern is hardly ever shown"


def test_items_are_drawn_by_themselves() -> None:
    together = drawn(Noise(range(8)), CRS_DIFF, 0.1, 0.1)
    assert torch.equal(drawn(Noise(range(5, 8)), CRS_DIFF, 0.1, 0.1), together[5:])


@pytest.mark.parametrize("pattern", list(product((False, True), repeat=3)))
def test_what_is_hidden_is_as_absent(pattern: tuple[bool, ...]) -> None:
    specs = {key: CRS_DIFF[key] for key in ("mlsd", "hed", "road")}
    batch = numbered(tuple(specs))
    shown = {key: batch[key] for key, keep in zip(specs, pattern, strict=True) if keep} | {"item": torch.arange(2)}
    hidden = kept(stacked(batch, specs, SIZE, CPU), torch.tensor([pattern] * 2), specs)
    for key, value in stacked(shown, specs, SIZE, CPU).items():
        assert torch.equal(hidden[key], value)


# --- features --------------------------------------------------------------------------------------------------------


def test_features_have_the_published_shapes_and_are_0_at_the_start() -> None:
    with torch.device("meta"):
        found = FeatureExtractor(18, 8, (192, 256, 384, 512))(torch.empty(1, 18, 512, 512))
    shapes = {stride: tuple(value.shape[1:]) for stride, value in found.items()}
    assert shapes == {1: (192, 64, 64), 2: (256, 32, 32), 4: (384, 16, 16), 8: (512, 8, 8)}
    small = FeatureExtractor(18, 8, (8, 8, 8, 8), (4, 4, 8))
    assert not any(value.any() for value in small(torch.rand(2, 18, 64, 64)).values())


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_features_lie_on_what_is_diffused_whatever_the_autoencoders_stride(reduction: int) -> None:
    found = FeatureExtractor(3, reduction, (8, 8), (4, 4, 8))(torch.rand(1, 3, 16 * reduction, 8 * reduction))
    assert {stride: tuple(value.shape[2:]) for stride, value in found.items()} == {1: (16, 8), 2: (8, 4)}


@pytest.mark.parametrize("reduction", [3, 16])
def test_other_strides_are_refused(reduction: int) -> None:
    with pytest.raises(IncompatibleParts, match=f"got stride {reduction}"):
        FeatureExtractor(3, reduction, (8,))


# --- fusion ----------------------------------------------------------------------------------------------------------


def attended(part: PositionAttention, h: Tensor) -> Tensor:
    """Return the formula, with its whole matrix."""
    q, k, v = (one(h).flatten(2) for one in (part.query, part.key, part.value))
    found: Tensor = v @ torch.softmax(q.mT @ k, -1).mT
    return h + found.view_as(h)


@torch.no_grad()
@pytest.mark.parametrize("side", [4, 24])  # of which the second is computed in two parts
def test_attention_is_over_all_positions_and_its_logits_are_not_scaled(side: int) -> None:
    part: PositionAttention = shaken(PositionAttention(16))
    h = torch.randn(2, 16, side, side)
    torch.testing.assert_close(part(h), attended(part, h), atol=1e-5, rtol=1e-5)
    for parameter in part.value.parameters():
        parameter.zero_()
    assert torch.equal(part(h), h)


@torch.no_grad()
def test_where_maps_say_nothing_the_block_is_normalised_without_weights() -> None:
    part: Fusion = shaken(Fusion(4, 64, "enhanced"))
    for conv in (part.scale, part.shift):
        assert conv is not None
        assert conv.bias is not None
        conv.bias.zero_()
    h, nothing = torch.randn(2, 64, 6, 6), torch.zeros(2, 4, 6, 6)
    assert part.attention is not None
    wanted = functional.group_norm(attended(part.attention, h), 32)
    torch.testing.assert_close(part.edit(part(nothing))(h), wanted, atol=1e-5, rtol=1e-5)
    for parameter in part.attention.value.parameters():
        parameter.zero_()
    torch.testing.assert_close(part.edit(part(nothing))(h), functional.group_norm(h, 32))


@torch.no_grad()
@pytest.mark.parametrize("how", ["denormalise", "enhanced", "add"])
def test_the_formulas_are_the_papers(how: Any) -> None:
    part: Fusion = shaken(Fusion(4, 16, how))
    h, features = torch.randn(2, 16, 6, 6), torch.randn(2, 4, 6, 6)
    beta = functional.conv2d(features, part.shift.weight, part.shift.bias, padding=1)
    if how == "add":
        wanted = h + beta
    else:
        assert part.scale is not None
        gamma = functional.conv2d(features, part.scale.weight, part.scale.bias, padding=1)
        first = h if part.attention is None else attended(part.attention, h)
        wanted = functional.group_norm(first, 8) * (1 + gamma) + beta
    torch.testing.assert_close(part.edit(part(features))(h), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_features_say_stays_within_three_pixels() -> None:
    part: Fusion = shaken(Fusion(4, 16, "enhanced"))
    h, features = torch.randn(1, 16, 9, 9), torch.randn(1, 4, 9, 9)
    other = features.clone()
    other[..., 4, 5] += 1
    changed = (part.edit(part(other))(h) != part.edit(part(features))(h)).any(1)[0]
    near = torch.zeros(9, 9, dtype=torch.bool)
    near[3:6, 4:7] = True
    assert torch.equal(changed, near)


def test_an_edit_leaves_the_map_as_it_was() -> None:
    part: Fusion = shaken(Fusion(4, 16, "enhanced"))
    h = torch.randn(1, 16, 4, 4)
    before = h.clone()
    edit = part.edit(part(torch.randn(1, 4, 4, 4)))
    edit(h)
    assert isinstance(edit, Affine)
    assert torch.equal(h, before)
