"""Hints that are given: classes, roads, depth, any bands."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffloom.errors import DataError
from diffloom_data.geometry import Crop, Flip, Rotate
from diffloom_hints.hint import Hint
from diffloom_hints.maps import DepthMap, RoadMap, SegmentationMap, SelectedBands
from diffloom_hints.palettes import LOVEDA, colours, voc

STYLES = st.sampled_from(["palette", "one-hot", "index"])


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mask_of(classes: int, seed: int = 0, side: int = 12) -> Tensor:
    return torch.randint(0, classes, (1, side, side), generator=stream(seed))


def hinted(hint: Hint, key: str, value: Tensor, side: int = 12) -> Tensor:
    drawn: Tensor = hint({"image": torch.zeros(3, side, side), key: value}, stream())["hint"]
    return drawn


@given(STYLES, st.integers(1, 40), st.integers(0, 999))
@settings(deadline=None, max_examples=40)
def test_a_map_gives_its_classes_back(style: str, classes: int, seed: int) -> None:
    hint, mask = SegmentationMap(classes=classes, style=style), mask_of(classes, seed)  # type: ignore[arg-type]
    drawn = hinted(hint, "mask", mask)
    assert drawn.shape[0] == {"palette": 3, "one-hot": classes, "index": 1}[style]
    assert drawn.dtype == torch.float32
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
    assert torch.equal(hint.numbers(drawn), mask[0])
    assert torch.equal(hint.numbers(drawn[None]), mask)


@given(STYLES)
@settings(deadline=None)
def test_what_is_no_class_is_0_in_every_band(style: str) -> None:
    mask = torch.tensor([[[0, 1, 2], [-1, 255, 3], [2, 1, 0]]])
    hint = SegmentationMap(classes=3, style=style, without=(1,))  # type: ignore[arg-type]
    drawn = hinted(hint, "mask", mask, side=3)
    hidden = (mask[0] == 1) | (mask[0] < 0) | (mask[0] > 2)
    assert float(drawn[:, hidden].abs().max()) == 0
    assert float(drawn[:, ~hidden].max(0).values.min()) > 0
    assert torch.equal(hint.numbers(drawn), torch.where(hidden, -1, mask[0]))


def test_voc_colours_are_those_published() -> None:
    assert [voc(number) for number in (0, 1, 2, 3, 7, 8, 15, 20, 255)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (128, 128, 128),
        (64, 0, 0),
        (192, 128, 128),
        (0, 64, 128),
        (224, 224, 192),
    ]
    assert len({voc(number) for number in range(256)}) == 256


def test_palettes_have_a_colour_of_their_own_for_every_class() -> None:
    for name, count in (("voc", 255), ("loveda", 7)):
        found = {tuple(row) for row in colours(name, count).tolist()}
        assert len(found) == count
        assert (0.0, 0.0, 0.0) not in found
    drawn = hinted(SegmentationMap(classes=7, palette="loveda"), "mask", torch.full((1, 12, 12), 2))
    assert (drawn[:, 0, 0] * 255).round().int().tolist() == [*LOVEDA[2]]
    own = hinted(SegmentationMap(classes=2, palette=((10, 20, 30), (1, 2, 3))), "mask", torch.ones(1, 12, 12).long())
    assert (own[:, 0, 0] * 255).round().int().tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="8 classes need"):
        SegmentationMap(classes=8, palette="loveda")


@given(st.integers(0, 200))
@settings(deadline=None, max_examples=20)
def test_hints_lie_over_the_image_after_any_geometry(seed: int) -> None:
    """The image shows its mask, and so does the hint made after crop, flip and turn."""
    mask = mask_of(4, seed, side=16)
    sample = {"image": mask.float() / 2 - 0.75, "mask": mask}
    generator = stream(seed)
    for transform in (Crop(size=8), Flip(horizontal=0.5, vertical=0.5), Rotate(), SegmentationMap(classes=4)):
        sample = transform(sample, generator)
    shown = ((sample["image"][0] + 0.75) * 2).round().long()
    assert torch.equal(SegmentationMap(classes=4).numbers(sample["hint"]), shown)


def test_a_mask_of_another_size_takes_the_nearest_values_of_any_type() -> None:
    mask = torch.tensor([[[0, 3], [2, 1]]])
    for given_mask in (mask, mask.float(), mask[0]):
        drawn = hinted(SegmentationMap(classes=4, style="index"), "mask", given_mask, side=8)
        assert torch.equal(drawn[0, ::4, ::4] * 4 - 1, mask[0].float())
        assert set((drawn * 4).flatten().tolist()) == {1.0, 2.0, 3.0, 4.0}


def test_roads_are_their_classes_or_a_map_that_is_given() -> None:
    mask = mask_of(4)
    roads = hinted(RoadMap(classes=(2, 3)), "mask", mask)
    assert torch.equal(roads, (mask >= 2).float())
    assert torch.equal(hinted(RoadMap(classes=(2, 3), copies=3), "mask", mask), roads.expand(3, -1, -1))
    given_map = torch.rand(1, 12, 12, generator=stream()) * 2 - 1
    assert torch.allclose(hinted(RoadMap(of="roads"), "roads", given_map), (given_map + 1) / 2)
    with pytest.raises(DataError, match="which classes are roads"):
        hinted(RoadMap(), "mask", mask)


def test_depth_uses_its_own_range_or_the_one_named() -> None:
    depth = 300 + torch.rand(1, 12, 12, generator=stream(), dtype=torch.float64) * 50
    depth[0, 0, 0], depth[0, 0, 1] = 300, 350
    drawn = hinted(DepthMap(), "depth", depth)
    assert (float(drawn.min()), float(drawn.max())) == (0.0, 1.0)
    assert torch.allclose(drawn, ((depth - 300) / 50).float(), atol=1e-6)
    assert torch.allclose(hinted(DepthMap(invert=True), "depth", depth), 1 - drawn, atol=1e-6)
    named = hinted(DepthMap(low=310, high=330), "depth", depth)
    assert torch.allclose(named, ((depth - 310) / 20).clamp(0, 1).float(), atol=1e-6)


@pytest.mark.parametrize("invert", [False, True])
def test_depth_without_numbers_or_range_is_0(invert: bool) -> None:
    gaps = torch.tensor([[[1.0, float("nan")], [3.0, float("-inf")]]])
    drawn = hinted(DepthMap(invert=invert), "depth", gaps, side=2)
    assert drawn[0, :, 1].tolist() == [0, 0]
    assert drawn[0, :, 0].tolist() == ([1, 0] if invert else [0, 1])
    for flat in (torch.full((1, 2, 2), 7.0), torch.full((1, 2, 2), float("nan"))):
        assert float(hinted(DepthMap(invert=invert), "depth", flat, side=2).abs().max()) == 0


def test_selected_bands_are_brought_to_0_to_1_in_the_order_asked_for() -> None:
    raster = torch.rand(5, 12, 12, generator=stream()) * 10000
    drawn = hinted(SelectedBands(of="bands", bands=(3, 0), low=2000, high=8000), "bands", raster)
    assert torch.allclose(drawn, ((raster[[3, 0]] - 2000) / 6000).clamp(0, 1), atol=1e-6)
    image = {"image": torch.tensor([[[-1.0, 0.0], [1.0, float("nan")]]])}
    assert SelectedBands()(image, stream())["hint"].tolist() == [[[0, 0.5], [1, 0]]]
    with pytest.raises(ValueError, match="below"):
        SelectedBands(low=1, high=1)


def test_maps_of_several_bands_are_refused_where_one_is_meant() -> None:
    two = torch.zeros(2, 12, 12)
    for hint, key in ((SegmentationMap(classes=2), "mask"), (RoadMap(), "mask"), (DepthMap(), "depth")):
        with pytest.raises(DataError, match="one"):
            hinted(hint, key, two)
