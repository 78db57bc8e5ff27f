"""HintAgreement: precision and recall of the maps that were asked for."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffloom.data import Sample
from diffloom.errors import IncompatibleParts
from diffloom_data.geometry import Flip
from diffloom_hints.agreement import HintAgreement
from diffloom_hints.edges import Canny
from diffloom_hints.maps import SelectedBands
from diffloom_metrics.otherwise import Baseline
from tests.metrics.fakes import Judged, Listed


def judged(path: Path, asked: list[Tensor], answers: list[Tensor]) -> Judged:
    """Samples whose hint is `asked`, answered by images whose only band is the map that is found."""
    samples: list[Sample] = [{"image": torch.zeros_like(hint), "hint": hint} for hint in asked]
    stacked = torch.stack(answers)
    return Judged(Listed(samples), path, lambda batch: {"image": stacked[: len(batch["image"])]}, count=len(asked))


def column(place: int, height: int = 8) -> Tensor:
    found = torch.zeros(1, 8, 16)
    found[0, :height, place] = 1.0
    return found


@pytest.mark.parametrize(("place", "tolerance", "right"), [(4, 0, 1), (5, 0, 0), (5, 1, 1), (6, 1, 0), (6, 2, 1)])
def test_a_line_counts_within_the_tolerance(place: int, tolerance: int, right: int, tmp_path: Path) -> None:
    metric = HintAgreement(hint=SelectedBands(), tolerance=tolerance)
    found = metric.measure(judged(tmp_path, [column(4)] * 2, [column(place) * 2 - 1] * 2))
    assert found["hint-precision"] == found["hint-recall"] == right
    assert found["hint-f1"] == pytest.approx(right, nan_ok=True) or not right


def test_half_a_line_too_many_and_a_line_missing_are_told_apart(tmp_path: Path) -> None:
    metric = HintAgreement(hint=SelectedBands(), tolerance=0)
    both = (column(4) + column(10)) * 2 - 1
    more = metric.measure(judged(tmp_path, [column(4)], [both]))
    assert more == pytest.approx({"hint-f1": 2 / 3, "hint-precision": 0.5, "hint-recall": 1.0})
    half = metric.measure(judged(tmp_path, [column(4)], [column(4, 2) * 2 - 1]))
    assert half == pytest.approx({"hint-f1": 0.4, "hint-precision": 1.0, "hint-recall": 0.25})


def test_counts_are_of_the_whole_set(tmp_path: Path) -> None:
    metric = HintAgreement(hint=SelectedBands(), tolerance=0)
    found = metric.measure(judged(tmp_path, [column(4), column(9, 2)], [column(4) * 2 - 1, column(3) * 2 - 1]))
    assert found == pytest.approx({"hint-f1": 16 / 26, "hint-precision": 8 / 16, "hint-recall": 8 / 10})


def test_edges_are_found_again_in_the_image_and_not_in_anothers(tmp_path: Path) -> None:
    images = []
    for place in (6, 20, 12, 26):
        image = torch.full((3, 32, 32), -0.7)
        image[:, :, place:] = 0.6
        images.append(image)
    hint = Canny()
    samples: list[Sample] = [hint({"image": image}, torch.Generator()) for image in images]
    one = Judged(Listed(samples), tmp_path, lambda batch: {"image": batch["image"]}, count=4)
    assert HintAgreement(hint=hint).measure(one)["hint-f1"] == 1
    shuffled = Baseline(metrics=(HintAgreement(hint=hint),), answer="shuffled").measure(one)
    assert shuffled["hint-precision/shuffled"] == shuffled["hint-recall/shuffled"] == 0


def test_a_transform_that_is_no_hint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleParts, match="no hint"):
        HintAgreement(hint=Flip()).measure(judged(tmp_path, [column(1)], [column(1)]))
