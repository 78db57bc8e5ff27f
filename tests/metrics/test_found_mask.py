"""Masks found again in answers: counts of a whole set, and a segmenter that learns from the data alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.data import Sample
from diffloom.errors import IncompatibleParts
from diffloom_metrics import segmenter
from diffloom_metrics.found_mask import MaskIoU
from diffloom_metrics.otherwise import Baseline
from diffloom_metrics.segmenter import IGNORED, Confusion, Masked
from tests.metrics.fakes import Judged, Listed

UNKNOWN = 9


def scenes(count: int, seed: int = 0) -> Listed:
    """Return images whose masks are seen in their brightness: two classes in random quarters, a corner unknown."""
    generator = torch.Generator().manual_seed(seed)
    samples: list[Sample] = []
    for _ in range(count):
        quarters = torch.randint(2, (1, 2, 2), generator=generator)
        mask = quarters.repeat_interleave(8, 1).repeat_interleave(8, 2)
        noise = 0.1 * torch.randn(3, 16, 16, generator=generator)
        image = (mask.float() - 0.5).expand(3, 16, 16) + noise
        marked = mask.clone()
        marked[:, :2, :2] = UNKNOWN
        samples.append({"image": image, "mask": marked})
    return Listed(samples)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter, "_STEPS", 40)


def judged(path: Path, answer: Any = None, seed: int = 0) -> Judged:
    held_out = scenes(24, seed=1)
    return Judged(scenes(32, seed), path, answer or _truth, held_out=held_out, count=24)


def _truth(batch: Batch) -> Batch:
    return {"image": batch["image"]}


def test_the_published_example_of_iou() -> None:
    true, found = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2]), torch.tensor([0, 1, 1, 1, 2, 2, 0, 2])
    for classes in (3, 4):  # a class that occurs nowhere has no say
        assert Confusion.of(found, true, classes).iou() == pytest.approx(0.583333, abs=1e-6)
        assert Confusion.of(found, true, classes).accuracy() == 0.75
    halves = Confusion.of(found[:3], true[:3], 3) + Confusion.of(found[3:], true[3:], 3)
    assert torch.equal(halves.counts, Confusion.of(found, true, 3).counts)
    ignored = torch.cat([true, torch.tensor([IGNORED])])
    assert Confusion.of(torch.cat([found, torch.tensor([1])]), ignored, 3).iou() == halves.iou()


@pytest.mark.usefixtures("quick")
def test_a_mask_is_found_in_the_answer_to_it_and_not_in_that_to_another(tmp_path: Path) -> None:
    metric = MaskIoU(classes=2, ignore=(UNKNOWN,))
    one = judged(tmp_path)
    found = metric.measure(one)
    assert found["segmenter/iou"] > 0.95
    assert found["mask-iou"] == pytest.approx(found["segmenter/iou"], abs=1e-6)
    assert found["mask-accuracy"] > 0.97
    shuffled = Baseline(metrics=(metric,), answer="shuffled").measure(one)
    assert shuffled["mask-iou/shuffled"] < 0.6  # chance is a third
    assert shuffled["segmenter/iou"] == found["segmenter/iou"]

    def inverted(batch: Batch) -> Batch:
        return {"image": -batch["image"]}

    assert metric.measure(judged(tmp_path, inverted))["mask-iou"] < 0.05


@pytest.mark.usefixtures("quick")
def test_a_segmenter_is_kept_for_the_same_data_and_for_no_other(tmp_path: Path) -> None:
    metric = MaskIoU(classes=2, ignore=(UNKNOWN,))
    first = metric.measure(judged(tmp_path))
    (file,) = tmp_path.glob("segmenter-*.safetensors")
    written = file.stat().st_mtime_ns
    assert metric.measure(judged(tmp_path)) == first
    assert file.stat().st_mtime_ns == written
    metric.measure(judged(tmp_path, seed=5))
    assert len(list(tmp_path.glob("segmenter-*.safetensors"))) == 2


def test_items_are_ordered_by_what_they_are() -> None:
    items = scenes(6).samples

    def collected(samples: list[Sample]) -> Masked:
        batch: dict[str, Tensor] = {key: torch.stack([s[key] for s in samples]) for key in ("image", "mask")}
        return Masked.collect([batch], "mask", (UNKNOWN,))

    one, other = collected(items), collected(items[::-1])
    assert one.keys == other.keys
    assert torch.equal(one.masks, other.masks)
    assert int((one.masks == IGNORED).sum()) == 6 * 4


def test_large_images_and_their_masks_are_seen_small() -> None:
    mask = torch.zeros(1, 128, 96)
    mask[:, 64:] = 1
    small = segmenter.small_masks({"image": torch.zeros(1, 3, 128, 96), "mask": mask}, "mask", ())
    assert small.shape == (1, 64, 48)
    assert int(small[:, :32].max()) == 0
    assert int(small[:, 32:].min()) == 1


@pytest.mark.parametrize(
    ("metric", "match"),
    [(MaskIoU(classes=2), "other classes"), (MaskIoU(classes=2, key="map"), "no masks")],
)
def test_data_without_such_masks_are_refused(metric: MaskIoU, match: str, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleParts, match=match):
        metric.measure(judged(tmp_path))
