import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.errors import CheckpointError, DataError, IncompatibleParts
from diffloom.metric import Metric
from diffloom_data.digits import Digits
from diffloom_metrics.networks import Network
from diffloom_metrics.sets import FID, KID, InceptionScore
from tests.metrics.fakes import Answer, Judged, images, listed, same

from diffloom_metrics.timm_network import TimmNetwork  # isort: skip  makes timm importable

import timm  # isort: skip

TRAIN = Digits(size=8)
TIMM = "timm:test_resnet"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", num_classes=7)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> Path:
    file = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    save_file(state, file)
    return file


def faded(batch: Batch) -> Batch:
    return {"image": batch["image"] * 0.9 - 0.1 + 0.2 * images(*batch["image"].shape, seed=2)}


def noisy(batch: Batch) -> Batch:
    return {"image": images(*batch["image"].shape, seed=1)}


def figures(metric: Metric, answer: Answer, cache: Path, seed: int = 0) -> dict[str, float]:
    evaluation = Judged(TRAIN, cache, answer, count=300, seed=seed)
    return metric.measure(evaluation)


def test_worse_images_are_farther_away_and_each_figure_names_its_network(cache: Path) -> None:
    found = [figures(FID(), answer, cache) for answer in (same, faded, noisy)]
    assert set(found[0]) == {"fid/classifier", "classifier/accuracy"}
    distances = [each["fid/classifier"] for each in found]
    assert abs(distances[0]) < 1e-6
    assert distances[0] < distances[1] < distances[2]
    assert found[0]["classifier/accuracy"] > 0.9

    found = [figures(KID(subsets=20, subset_size=100), answer, cache) for answer in (same, faded, noisy)]
    assert set(found[0]) == {"kid/classifier", "kid_std/classifier", "classifier/accuracy"}
    distances = [each["kid/classifier"] for each in found]
    assert distances[0] < distances[1] < distances[2]
    assert distances[0] < 0 < distances[1]  # unbiased: of a set and itself it is below 0


def test_subsets_of_few_images_still_differ(cache: Path) -> None:
    found = figures(KID(subsets=9), faded, cache)
    assert found["kid_std/classifier"] > 1e-3
    assert found["kid/classifier"] == pytest.approx(
        figures(KID(subsets=9, subset_size=149), faded, cache)["kid/classifier"], rel=0.2
    )


def test_recognisable_balanced_images_score_near_the_number_of_classes(cache: Path) -> None:
    good, bad = (figures(InceptionScore(splits=2), answer, cache) for answer in (same, noisy))
    assert set(good) == {"inception-score/classifier", "inception-score_std/classifier", "classifier/accuracy"}
    assert 8 < good["inception-score/classifier"] <= 10
    assert 1 <= bad["inception-score/classifier"] < 4
    assert figures(InceptionScore(splits=1), same, cache)["inception-score_std/classifier"] == 0


def test_figures_are_a_function_of_the_seed(cache: Path) -> None:
    metric = KID(subsets=5, subset_size=50)
    state = torch.get_rng_state()
    assert figures(metric, faded, cache) == figures(metric, faded, cache)
    assert figures(metric, faded, cache) != figures(metric, faded, cache, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_too_few_images_for_a_covariance_are_warned_about(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        FID().measure(Judged(TRAIN, cache, same, count=40))
    assert "trust kid" in caplog.text
    with pytest.raises(DataError, match="two images"):
        FID().measure(Judged(TRAIN, cache, same, count=1))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_network_of_timm_needs_no_labels(tmp_path: Path, state: dict[str, Tensor], suffix: str) -> None:
    file = tmp_path / f"w.{suffix}"
    save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    data = listed(12, 3, 20, 20)
    assert FID(network=TIMM, weights=file).measure(Judged(data, tmp_path, same)) == {
        f"fid/{TIMM}": pytest.approx(0, abs=1e-6)
    }
    score = InceptionScore(network=TIMM, weights=file).measure(Judged(data, tmp_path, same))
    assert 1 <= score[f"inception-score/{TIMM}"] <= 7


def test_images_are_prepared_as_the_network_was_trained(weights: Path, state: dict[str, Tensor]) -> None:
    network: Network = TimmNetwork("test_resnet", weights, torch.device("cpu"))
    model = timm.create_model("test_resnet", num_classes=7)
    model.load_state_dict(state)
    model.eval()
    config = model.pretrained_cfg
    side = config["input_size"][-1]
    batch = images(3, 3, side, side)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        logits = model((batch / 2 + 0.5 - mean) / std)
    assert torch.allclose(network.probabilities(batch), logits.double().softmax(dim=1), atol=1e-5)
    grey = batch[:, :1]
    assert torch.allclose(network.features(grey), network.features(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(IncompatibleParts, match="3 channels, or 1"):
        network.features(images(1, 5, 8, 8))


def test_weights_without_a_head_give_features_and_no_classes(tmp_path: Path, state: dict[str, Tensor]) -> None:
    bare = {name: value for name, value in state.items() if not name.startswith("fc.")}
    save_file(bare, tmp_path / "w.safetensors")
    network = TimmNetwork("test_resnet", tmp_path / "w.safetensors", torch.device("cpu"))
    assert network.features(images(2, 3, 16, 16)).shape[0] == 2
    with pytest.raises(CheckpointError, match="no classes"):
        network.probabilities(images(2, 3, 16, 16))


def test_missing_weights_are_refused_before_anything_is_computed(tmp_path: Path, weights: Path) -> None:
    for metric in (FID, KID, InceptionScore):
        with pytest.raises(CheckpointError, match="no weights are named"):
            metric(network=TIMM)
        with pytest.raises(CheckpointError, match="nothing is downloaded"):
            metric(network=TIMM, weights=tmp_path / "missing.safetensors")
        with pytest.raises(IncompatibleParts, match="takes no weights"):
            metric(weights=weights)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, state: dict[str, Tensor], weights: Path) -> None:
    def opened(name: str, content: object) -> TimmNetwork:
        torch.save(content, tmp_path / "w.pth")
        return TimmNetwork(name, tmp_path / "w.pth", torch.device("cpu"))

    with pytest.raises(CheckpointError, match="not those of test_resnet"):
        opened("test_resnet", {"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no state dictionary"):
        opened("test_resnet", [1, 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        opened("test_resnet", Path("code"))
    with pytest.raises(IncompatibleParts, match="timm has no network 'test_resnt'"):
        opened("test_resnt", state)
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        TimmNetwork("test_resnet", tmp_path / "w.safetensors", torch.device("cpu"))
