"""The contract of metrics: built-in ones keep it, and it catches what breaks it."""

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


@pytest.mark.parametrize(
    ("cls", "check"), [(Fixed, "other-answers-give-other-figures"), (Drifting, "repeatable"), (Whole, "figures")]
)
def test_a_broken_metric_is_caught(cls: type[Metric], check: str) -> None:
    with registry.add("metric", "broken", cls):
        failed = {outcome.check for outcome in verify("metric", "broken") if outcome.status == "failed"}
    assert failed == {check}


def test_metrics_of_pairs_keep_their_contract() -> None:
    assert {outcome.status for outcome in verify("metric", "psnr")} == {"passed"}
    statuses = {outcome.status for outcome in verify("metric", "bits-per-dim")}
    assert statuses == {"not applicable"}  # made-up pairs have no likelihood
