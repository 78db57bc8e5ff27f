"""The contract of metrics: built-in ones keep it, and it catches what breaks it."""

import math

import pytest
import torch

from diffloom.kinds import registry
from diffloom.metric import Evaluation, Metric
from diffloom.testing.contracts import verify


class Fixed(Metric):
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        return {"a": 1.0}


class Drifting(Metric):
    calls = 0

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        Drifting.calls += 1
        return {"a": float(Drifting.calls)}


class Whole(Metric):
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        pairs = [(answer["image"] - batch["image"]).abs().mean() for batch, answer in evaluation.pairs()]
        return {"a": torch.stack(pairs).mean()}  # type: ignore[dict-item]  # on purpose


class Distance(Metric):
    """A sound metric, from which the next ones differ in one thing."""

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        pairs = [(answer["image"] - batch["image"]).abs().mean() for batch, answer in evaluation.pairs()]
        return {"a": float(torch.stack(pairs).mean())}


class Infinite(Distance):
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        return {**super().measure(evaluation), "b": math.inf}


class Undefined(Distance):
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        return {**super().measure(evaluation), "b": math.nan}


class Chance(Distance):
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        return {"a": super().measure(evaluation)["a"] + float(torch.rand(()))}


class Awake(Distance):
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        evaluation.system.train()
        return super().measure(evaluation)


class Freezing(Distance):
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        evaluation.system.requires_grad_(False)
        return super().measure(evaluation)


class Training(Distance):
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        with torch.no_grad():
            for parameter in evaluation.system.parameters():
                parameter.mul_(0.9)
        return super().measure(evaluation)


class Scribbling(Distance):
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        for batch, answer in evaluation.pairs():
            answer["image"].sub_(batch["image"])
        return super().measure(evaluation)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (Fixed, "other-answers-give-other-figures"),
        (Drifting, "repeatable"),
        (Chance, "repeatable"),
        (Whole, "figures"),
        (Infinite, "figures"),
        (Awake, "system-and-data-stay-as-they-are"),
        (Freezing, "system-and-data-stay-as-they-are"),
        (Training, "system-and-data-stay-as-they-are"),
        (Scribbling, "system-and-data-stay-as-they-are"),
    ],
)
def test_a_broken_metric_is_caught(cls: type[Metric], check: str) -> None:
    with registry.add("metric", "broken", cls):
        failed = {outcome.check for outcome in verify("metric", "broken") if outcome.status == "failed"}
    assert failed == {check}


@pytest.mark.parametrize("cls", [Distance, Undefined])
def test_a_sound_metric_keeps_every_law(cls: type[Metric]) -> None:
    with registry.add("metric", "sound", cls):
        assert {outcome.status for outcome in verify("metric", "sound")} == {"passed"}


def test_metrics_of_pairs_keep_their_contract() -> None:
    assert {outcome.status for outcome in verify("metric", "psnr")} == {"passed"}
    statuses = {outcome.status for outcome in verify("metric", "bits-per-dim")}
    assert statuses == {"not applicable"}  # made-up pairs have no likelihood
