"""Metadata: published numbers, waves and sizes; every item by its name; missing ones say what they are said to say."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffloom.condition import Condition
from diffloom.errors import CheckpointError, DataError, IncompatibleParts
from diffloom.noise import Noise
from diffloom_crs.metadata import CRS_DIFF, Metadata
from tests.ldm.conditioners.parts import denoiser

NOWHERE = torch.zeros(())


def small(**changes: Any) -> Metadata:
    torch.manual_seed(0)
    given: dict[str, Any] = {"width": 6, "zero_start": False, "denoiser": denoiser(vector=8), **changes}
    return Metadata(**given).eval()


def said(part: Metadata, rows: Any) -> Tensor:
    told: Condition = part(part.encode({"metadata": rows}), NOWHERE, NOWHERE, Condition())
    assert told.vector is not None
    return told.vector


def test_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        part = Metadata(denoiser=denoiser(vector=1280))
    assert part.width == 320
    assert sum(p.numel() for p in part.parameters()) == 2_876_160


def test_that_of_diffusionsat_is_a_matter_of_parameters() -> None:
    """Seven perceptrons 320 → 1280 → 1280 (Khanna et al. 2024)."""
    items = {
        "lon": (-180.0, 180.0), "lat": (-90.0, 90.0), "gsd": (0.0, 1.0), "cloud_cover": (0.0, 1.0),
        "year": (1980.0, 2100.0), "month": (0.0, 12.0), "day": (0.0, 31.0),
    }  # fmt: skip
    with torch.device("meta"):
        part = Metadata(items=items, layers=2, waves="adm", missing="zero", denoiser=denoiser(vector=1280))
    assert sum(p.numel() for p in part.parameters()) == 14_353_920


def test_ranges_become_0_to_1000() -> None:
    ends = torch.tensor(list(CRS_DIFF.values())).T
    code = small().encode({"metadata": ends})
    assert torch.equal(code["k"], torch.tensor([[0.0] * 7, [1000.0] * 7]))
    row = {"year": 2016, "month": 7, "day": 15, "gsd": 0.5, "cloud_cover": 10, "lat": 34.05, "lon": -118.24}
    wanted = torch.tensor([[818.182, 583.333, 483.871, 100, 100, 689.167, 171.556]])
    torch.testing.assert_close(small().encode({"metadata": [row]})["k"], wanted, atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    ("waves", "order"), [("interleaved", "sin cos"), ("adm", "cos sin apart"), ("ddpm", "sin cos apart")]
)
def test_waves_follow_one_another_as_they_should(waves: Any, order: str) -> None:
    k, half = 437.5, 3
    steps = half - 1 if waves == "ddpm" else half
    angles = [k * 10000 ** (-i / steps) for i in range(half)]
    sines, cosines = [math.sin(a) for a in angles], [math.cos(a) for a in angles]
    pairs = [x for pair in zip(sines, cosines, strict=True) for x in pair]
    wanted = {"sin cos": pairs, "cos sin apart": cosines + sines, "sin cos apart": sines + cosines}[order]
    torch.testing.assert_close(small(waves=waves).embedded(torch.tensor(k)), torch.tensor(wanted), atol=1e-4, rtol=0)


def test_an_odd_width_ends_with_0() -> None:
    assert small(width=7).embedded(torch.tensor([3.0]))[0, 6] == 0


def test_items_go_by_name_and_not_by_place() -> None:
    """Items that change places together with their layers say the same; items alone do not."""
    part = small()
    order = [3, 1, 6, 0, 2, 5, 4]
    names = list(CRS_DIFF)
    other = small(items={names[i]: CRS_DIFF[names[i]] for i in order})
    for j, i in enumerate(order):
        other.items[j].load_state_dict(part.items[i].state_dict())
    rows = torch.tensor([[2016, 7, 15, 0.5, 10, 34.05, -118.24]])
    named = [dict(zip(names, rows[0].tolist(), strict=True))]
    torch.testing.assert_close(said(part, rows), said(other, named))
    torch.testing.assert_close(said(other, rows[:, order]), said(other, named))
    assert not torch.allclose(said(part, rows[:, order]), said(part, rows), atol=1e-2)


NAN = math.nan


@pytest.mark.parametrize(
    "rows",
    [[{"gsd": 0.5}], [{"gsd": 0.5, "lat": None}], torch.tensor([[NAN, NAN, NAN, 0.5, NAN, NAN, NAN]])],
)
def test_a_missing_item_says_nothing(rows: Any) -> None:
    part = small()
    waves = part.embedded(torch.tensor([100.0]))
    torch.testing.assert_close(said(part, rows), part.items[3](waves))


def test_a_missing_item_can_be_a_value_of_0() -> None:
    """What released weights of DiffusionSat know: not a vector of 0, but the wave of the lowest value."""
    part = small(missing="zero")
    lowest = {name: low for name, (low, _) in CRS_DIFF.items()} | {"gsd": 0.5}
    assert torch.equal(said(part, [{"gsd": 0.5}]), said(part, [lowest]))


def test_a_missing_item_can_say_something_of_its_own() -> None:
    part = small(missing="learned")
    assert part.absent is not None
    with torch.no_grad():
        part.absent.copy_(torch.arange(7.0)[:, None].expand(7, 8))
    wave = part.embedded(torch.tensor([100.0]))
    torch.testing.assert_close(said(part, [{"gsd": 0.5}]), part.items[3](wave) + (21 - 3))


def test_nothing_said_is_every_item_missing_and_so_is_no_metadata_at_all() -> None:
    part = small(missing="learned")
    code = part.encode({"metadata": [{"gsd": 0.5}, {"lat": 3.0}]})
    for nothing in (part.null(code), part.encode({"item": torch.arange(2)}), part.encode({"metadata": [{}, {}]})):
        assert not nothing["known"].any()
        assert not nothing["k"].any()


def test_training_hides_items_each_by_itself() -> None:
    part, count = small(drop_each=0.3), 4000
    code = part.encode({"metadata": torch.zeros(count, 7)})
    hidden = part.hide(code, Noise(range(count)))
    assert (hidden["known"].float().mean(0) - 0.7).abs().max() < 0.03
    together = (~hidden["known"][:, 0] & ~hidden["known"][:, 1]).float().mean()
    assert together == pytest.approx(0.09, abs=0.02)
    assert part.encode({"metadata": torch.zeros(1, 7)})["known"].all()
    assert small().hide(code, Noise(range(count))) is code


def test_a_new_conditioner_adds_nothing_and_learns_at_the_first_step() -> None:
    part = small(zero_start=True, layers=2)
    vector = said(part, [{"gsd": 0.5}])
    assert not vector.any()
    last = part.get_parameter("items.3.2.weight")
    assert torch.autograd.grad(vector.sum(), last)[0].any()


def test_crs_diffs_files_are_read() -> None:
    part = small()
    (layout,) = part.layouts()
    stored = layout.write(part.state_dict())
    assert stored["metadata_emb.mlp_models.3.fc1.weight"].shape == (8, 6)
    assert all(torch.equal(value, part.state_dict()[key]) for key, value in layout.read(stored).items())
    assert not small(layers=2).layouts()
    with pytest.raises(CheckpointError):
        layout.read({})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(1, 3), r"expected \(B, 7\): year, month"),
        ([{"gds": 0.5}], "nobody asked for 'gds'"),
        ([3.0], "metadata are no mapping"),
    ],
)
def test_other_numbers_than_announced_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        small().encode({"metadata": rows})


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(IncompatibleParts, match="no vector port"):
        small(denoiser=denoiser(context=8))
    with pytest.raises(ValueError, match="equal: 3"):
        small(items={"gsd": (3.0, 3.0)})
    with pytest.raises(ValueError, match="an item at least"):
        small(items={})
