import logging
from pathlib import Path

import pytest
import torch

from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom_data.digits import Digits
from diffloom_metrics import classifier
from diffloom_metrics.classifier import Classifier, Labelled, shrink
from diffloom_metrics.networks import TrainedNetwork, trained_classifier
from diffloom_metrics.recognition import Accuracy
from tests.metrics.fakes import Judged, Listed, images, listed, same

TRAIN, TEST = Digits(), Digits(split="test")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def of_digits(cache: Path, seed: int = 0, count: int = 359) -> Judged:
    return Judged(TRAIN, cache, same, held_out=TEST, seed=seed, count=count)


def test_digits_are_recognised(cache: Path) -> None:
    trained = trained_classifier(of_digits(cache))
    assert trained.tested == 359
    assert trained.accuracy >= 0.97
    found = Accuracy().measure(of_digits(cache))
    assert found == {"accuracy": trained.accuracy, "classifier/accuracy": trained.accuracy}


def test_a_kept_classifier_is_the_same_whatever_the_order(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = TrainedNetwork(trained_classifier(of_digits(cache)), torch.device("cpu"))
    with caplog.at_level(logging.INFO, logger="diffloom_metrics.classifier"):
        again = TrainedNetwork(trained_classifier(of_digits(cache, seed=5)), torch.device("cpu"))
    assert "training" not in caplog.text
    batch = images(8, 1, 16, 16)
    assert torch.equal(first.features(batch), again.features(batch))
    assert first.features(batch).shape == (8, 64)
    assert torch.allclose(again.probabilities(batch).sum(dim=1), torch.ones(8, dtype=torch.float64))
    assert {file.suffix for file in cache.iterdir()} == {".json", ".safetensors"}


def test_pictures_of_the_wrong_class_are_not_recognised(cache: Path) -> None:
    def wrong(batch: Batch) -> Batch:
        return {"image": batch["image"].flip(0)}

    evaluation = Judged(TRAIN, cache, wrong, held_out=TEST, count=359)
    assert Accuracy().measure(evaluation)["accuracy"] < 0.25


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for fewer steps where the data are easy."""
    monkeypatch.setattr(classifier, "_STEPS", 40)


def coloured(count: int, shade: float = 0.5) -> Listed:
    noise = images(count, 2, 8, 8) * 0.3
    samples = [{"image": noise[i] + shade * (1 if i % 2 else -1), "label": i % 2} for i in range(count)]
    return Listed(samples, ("dark", "light"))


@pytest.mark.usefixtures("quick")
def test_another_data_set_is_another_classifier(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="diffloom_metrics.classifier"):
        trained = trained_classifier(Judged(coloured(60), tmp_path, same))
        assert trained.accuracy == 1
        assert 0 < trained.tested < 30  # a part that was not learnt, where no data are held out
        assert caplog.text.count("training") == 1
        trained_classifier(Judged(coloured(60), tmp_path, same))
        assert caplog.text.count("training") == 1
        trained_classifier(Judged(coloured(60, shade=0.4), tmp_path, same))
        assert caplog.text.count("training") == 2
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


@pytest.mark.usefixtures("quick")
def test_a_damaged_file_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = trained_classifier(Judged(coloured(40), tmp_path, same))
    file = next(tmp_path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-10])
    second = trained_classifier(Judged(coloured(40), tmp_path, same))
    assert "made anew" in caplog.text
    batch = images(4, 2, 8, 8)
    assert torch.allclose(first.network(batch), second.network(batch), atol=1e-3)


@pytest.mark.usefixtures("quick")
def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    trained_classifier(Judged(coloured(40), tmp_path, same))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("data", "held_out", "said"),
    [
        (listed(40, 1, 8, 8), None, "no labels to train a classifier on"),
        (Listed(coloured(40).samples, ("one",)), None, "no labels"),
        (coloured(40), Listed(coloured(40).samples, ("a", "b")), "other classes"),
        (coloured(20), None, "too few"),
    ],
)
def test_data_that_teach_nothing_are_refused(tmp_path: Path, data: Listed, held_out: Listed | None, said: str) -> None:
    with pytest.raises(IncompatibleParts, match=said) as caught:
        trained_classifier(Judged(data, tmp_path, same, held_out=held_out))
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick")
def test_judging_without_a_class_asked_for_or_with_other_channels_is_refused(tmp_path: Path) -> None:
    unlabelled = listed(40, 2, 8, 8)
    with pytest.raises(IncompatibleParts, match="no class was asked for"):
        Accuracy().measure(Judged(coloured(40), tmp_path, same, held_out=unlabelled))
    grey = Judged(coloured(40), tmp_path, lambda batch: {"image": batch["image"][:, :1]})
    with pytest.raises(IncompatibleParts, match="2 channels"):
        Accuracy().measure(grey)


@pytest.mark.parametrize("side", [4, 8, 16, 33, 64, 200])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_any_size_and_any_channels_give_features(side: int, channels: int) -> None:
    network = Classifier(channels=channels, side=min(side, 64), classes=5).eval()
    batch = images(2, channels, side, side)
    assert network.features(batch).shape == (2, 64)
    assert network(batch).shape == (2, 5)
    assert torch.allclose(network(batch)[:1], network(batch[:1]), atol=1e-5)


def test_large_images_are_averaged_to_a_side_of_64() -> None:
    assert shrink(images(1, 3, 256, 128)).shape == (1, 3, 64, 32)
    assert torch.allclose(shrink(torch.full((1, 1, 100, 100), 0.3)), torch.tensor(0.3))
    batch = images(1, 1, 64, 64)
    assert shrink(batch) is batch


def test_what_is_collected_depends_on_the_items_alone() -> None:
    data = coloured(50)
    forward, backward = ([data.get(i) for i in order] for order in (range(50), reversed(range(50))))
    one = Labelled.collect(
        [{"image": torch.stack([s["image"] for s in forward]), "label": torch.tensor([s["label"] for s in forward])}]
    )
    two = Labelled.collect([{"image": s["image"][None], "label": torch.tensor([s["label"]])} for s in backward])
    assert one.keys == two.keys
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.labels, two.labels)
    learnt, judged = one.divided()
    assert len(learnt.keys) + len(judged.keys) == 50
    assert len(judged.keys) >= 3
    assert not set(learnt.keys) & set(judged.keys)
