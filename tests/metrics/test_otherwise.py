"""Figures of other answers: trivial ones, shuffled ones, and means of many."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch
from diffloom.data import Sample
from diffloom.engine.evaluate import Evaluation
from diffloom.errors import IncompatibleParts
from diffloom.kinds import registry
from diffloom.metric import Metric
from diffloom.system import Conditioning, System
from diffloom.testing.oracles import DiagonalGaussian, PointMass
from diffloom.testing.standins import PlainAutoencoder
from diffloom_ddim.sampler import DDIM
from diffloom_ddpm.class_label import ClassLabel
from diffloom_ddpm.generate import Generate
from diffloom_ldm.tasks.inpaint import Inpaint
from diffloom_ldm.tasks.super_resolution import SuperResolution
from diffloom_ldm.tasks.translate import Translate
from diffloom_metrics.fidelity import PSNR, SSIM
from diffloom_metrics.otherwise import Baseline, PosteriorMean
from diffloom_metrics.sets import FID
from tests.ldm.tasks.parts import PATH, Exact, system
from tests.metrics.fakes import Judged, Listed, images, listed


class Guesses:
    """A paired task with one trivial answer: grey."""

    paired = True

    def guesses(self) -> Mapping[str, Any]:
        def grey(batch: Batch, size: Sequence[int]) -> Tensor:
            return torch.zeros(len(batch["image"]), 3, *size)

        return {"grey": grey}


def judged(path: Path, answer: Any, count: int = 10) -> Judged:
    return Judged(listed(count, 3, 16, 16), path, answer, count=count, task=Guesses())


def test_a_trivial_answer_is_measured_as_the_systems_is(tmp_path: Path) -> None:
    one = judged(tmp_path, lambda batch: {"image": batch["image"] * 0.5})
    grey = judged(tmp_path, lambda batch: {"image": torch.zeros_like(batch["image"])})
    for metric in (PSNR(), SSIM()):
        (name,) = metric.measure(one)
        assert Baseline(metrics=(metric,), answer="grey").measure(one) == {f"{name}/grey": metric.measure(grey)[name]}


def test_a_shuffled_answer_is_the_next_ones(tmp_path: Path) -> None:
    same = judged(tmp_path, lambda batch: {"image": batch["image"]})
    assert PSNR().measure(same) == {"psnr": 100}
    rolled = judged(tmp_path, lambda batch: {"image": batch["image"].roll(1, 0)})
    found = Baseline(metrics=(PSNR(),), answer="shuffled").measure(same)
    assert found == {"psnr/shuffled": PSNR().measure(rolled)["psnr"]}
    assert found["psnr/shuffled"] < 10


def test_a_reconstructed_answer_is_the_real_image_through_the_autoencoder(tmp_path: Path) -> None:
    class Halving(PlainAutoencoder):
        def decode(self, z: Tensor) -> Tensor:
            return z / 2

    one = judged(tmp_path, lambda batch: {"image": torch.zeros_like(batch["image"])})
    one.system.autoencoder = Halving(channels=3)
    expected = judged(tmp_path, lambda batch: {"image": batch["image"] / 2})
    found = Baseline(metrics=(PSNR(),), answer="reconstructed").measure(one)
    assert found == {"psnr/reconstructed": PSNR().measure(expected)["psnr"]}


def test_what_concerns_the_judge_keeps_its_name(tmp_path: Path) -> None:
    samples: list[Sample] = [
        {"image": x.clamp(-1, 0) if i % 2 else x.clamp(0, 1), "label": i % 2}
        for i, x in enumerate(images(64, 3, 16, 16))
    ]
    one = Judged(
        Listed(samples, ("dark", "light")), tmp_path, lambda b: {"image": b["image"]}, count=64, task=Guesses()
    )
    found = Baseline(metrics=(FID(),), answer="grey").measure(one)
    assert set(found) == {"fid/classifier/grey", "classifier/accuracy"}
    assert found["fid/classifier/grey"] > 10 * FID().measure(one)["fid/classifier"]


def test_an_unknown_answer_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleParts, match="bicubic") as caught:
        Baseline(metrics=(PSNR(),), answer="bicubic").measure(judged(tmp_path, lambda batch: {"image": batch["image"]}))
    assert caught.value.expected == "shuffled, unconditional, reconstructed, grey"


def test_a_recipe_names_the_metric_inside() -> None:
    made = registry.build("metric", "baseline", metrics=[{"type": "psnr", "channel": "y"}], answer="bicubic")
    assert isinstance(made, Baseline)
    (inside,) = made.metrics
    assert isinstance(inside, PSNR)
    assert inside.channel == "y"


# --- the restorations' own guesses -----------------------------------------------------------------------------------


def test_the_guesses_of_restorations() -> None:
    image = images(2, 3, 8, 8)
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., :4] = 1
    (filled,) = [guess({"image": image, "mask": mask}, (8, 8)) for guess in Inpaint().guesses().values()]
    assert torch.equal(filled[..., 4:], image[..., 4:])
    known = image[..., 4:].mean((2, 3), keepdim=True).expand(2, 3, 8, 4)
    torch.testing.assert_close(filled[..., :4], known)
    hidden = Inpaint().guesses()["mean-fill"]({"image": image + 5 * mask, "mask": mask}, (8, 8))
    assert torch.equal(hidden, filled)

    guesses = SuperResolution(key="small").guesses()
    assert list(guesses) == ["bicubic", "nearest"]
    near = guesses["nearest"]({"small": image}, (16, 16))
    assert torch.equal(near, image.repeat_interleave(2, 2).repeat_interleave(2, 3))
    flat = torch.full((1, 3, 4, 4), 0.25)
    torch.testing.assert_close(guesses["bicubic"]({"small": flat}, (16, 16)), torch.full((1, 3, 16, 16), 0.25))
    assert torch.equal(Translate(source="pre").guesses()["source"]({"pre": image}, (8, 8)), image)


# --- means of many ---------------------------------------------------------------------------------------------------


def evaluation(built: Any, data: Any, path: Path, count: int) -> Evaluation:
    return Evaluation(built, train=data, held_out=data, count=count, batch=4, seed=0, cache=path)


def test_the_mean_of_n_draws_has_one_and_one_nth_of_the_least_error(tmp_path: Path) -> None:
    """Truth and answers are draws of one Gaussian, so the errors' closed forms are 2 s², (1 + 1/n) s² and s²."""
    deviation, side = 0.2, 48
    built = system(
        Translate(strength=None),
        Exact(DiagonalGaussian(PATH, 0.0, deviation)),
        size=(side, side),
        sampler=DDIM(steps=200),
    )
    truth = deviation * torch.randn(8, 1, side, side, generator=torch.Generator().manual_seed(1))
    one = evaluation(built, Listed([{"image": x} for x in truth]), tmp_path, 8)
    least = 10 * math.log10(4 / deviation**2)
    single = PSNR().measure(one)["psnr"]
    assert single == pytest.approx(least - 10 * math.log10(2), abs=0.12)
    for draws in (2, 8):
        found = PosteriorMean(metrics=(PSNR(),), draws=draws).measure(one)
        assert found == {f"psnr/mean-of-{draws}": pytest.approx(least - 10 * math.log10(1 + 1 / draws), abs=0.12)}


def test_means_are_the_same_whatever_was_asked_before(tmp_path: Path) -> None:
    built = system(Translate(strength=None), Exact(DiagonalGaussian(PATH, 0.0, 0.5)), size=(8, 8))
    data = listed(8, 1, 8, 8)
    metric = PosteriorMean(metrics=(PSNR(),), draws=3)
    first = metric.measure(evaluation(built, data, tmp_path, 8))
    later = evaluation(built, data, tmp_path, 8)
    PSNR().measure(later)
    assert metric.measure(later) == first


# --- nothing said ----------------------------------------------------------------------------------------------------


class Mean(Metric):
    """The mean of all answers."""

    def measure(self, evaluation: Any) -> dict[str, float]:
        found = [float(answer["image"].mean()) for _, answer in evaluation.pairs()]
        return {"mean": sum(found) / len(found)}


class Said(Exact):
    """A network that answers, as x0, with the number that its vector port says."""

    def __init__(self) -> None:
        super().__init__(PointMass(PATH, 0.0), ports=Ports(vector=1))

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        assert condition is not None
        assert condition.vector is not None
        return condition.vector[:, :, None, None].expand_as(x_t) * self.weight


def labelled(told: Conditioning) -> tuple[System, Listed]:
    """Return a system told of two classes, 0.5 and 0.5, or of none, −0.25; and data with labels."""
    network = Said()
    part = ClassLabel(classes=2, denoiser=network)
    with torch.no_grad():
        part.table.weight.copy_(torch.tensor([[0.5], [0.5], [-0.25]]))
    built = system(Generate(), network, conditioners={"label": part})
    built.plan = replace(built.plan, conditioning={"label": told})
    return built, Listed([{"image": x, "label": i % 2} for i, x in enumerate(images(4, 1, 4, 4))], ("a", "b"))


def test_classes_are_asked_for_in_turn_with_what_else_their_items_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, _ = labelled(Conditioning(drop=0.1, guidance=1.0))
    labels = [1, 0, 0, 1, 0, 0, 0]
    pictures = [label + number / 10 + torch.zeros(1, 4, 4) for number, label in enumerate(labels)]
    data = Listed([{"image": x, "label": label} for x, label in zip(pictures, labels, strict=True)], ("a", "b"))
    one = evaluation(built, data, tmp_path, 10)
    batches = [batch for batch, _ in one.pairs()]
    assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
    asked = torch.cat([batch["label"] for batch in batches]).tolist()
    assert asked == [0, 1] * 5
    numbers = [round(10 * float(x.mean())) for batch in batches for x in batch["image"]]
    seen = [number - 10 * label for number, label in zip(numbers, asked, strict=True)]
    assert [labels[number] for number in seen] == asked
    assert sorted(seen[::2]) == [1, 2, 4, 5, 6]  # all of a class before any comes again
    assert set(seen[1:5:2]) == {0, 3}
    with monkeypatch.context() as patch:
        patch.delattr(Listed, "read")  # what was judged is kept
        assert torch.equal(torch.cat([batch["label"] for batch, _ in one.pairs()]), torch.tensor(asked))
    assert Baseline(metrics=(Seen(),), answer="reconstructed").measure(one) == {"seen/reconstructed": 1.0}


class Seen(Metric):
    """The share of answers, 1 or less, that show the class asked for."""

    def measure(self, evaluation: Any) -> dict[str, float]:
        hits = [(answer["image"].mean((1, 2, 3)) >= 1) == batch["label"] for batch, answer in evaluation.pairs()]
        return {"seen": float(torch.cat(hits).float().mean())}


def test_nothing_said_is_what_training_dropped(tmp_path: Path) -> None:
    built, data = labelled(Conditioning(drop=0.1, guidance=1.4))
    one, plan = evaluation(built, data, tmp_path, 4), built.plan
    unsaid = Baseline(metrics=(Mean(),), answer="unconditional").measure(one)
    assert unsaid == {"mean/unconditional": pytest.approx(-0.25, abs=1e-3)}
    assert built.plan is plan
    assert Mean().measure(one)["mean"] == pytest.approx(-0.25 + 1.4 * 0.75, abs=1e-3)


def test_a_network_that_was_always_told_is_not_asked_without(tmp_path: Path) -> None:
    built, data = labelled(Conditioning())
    with pytest.raises(IncompatibleParts, match="never learned") as caught:
        Baseline(metrics=(Mean(),), answer="unconditional").measure(evaluation(built, data, tmp_path, 4))
    assert "conditioners.label.drop" in str(caught.value)
