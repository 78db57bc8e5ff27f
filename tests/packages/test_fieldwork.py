"""A stranger's package with one part of every kind, installed for real: tested, checked, trained, asked and judged."""

import json
import math
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from tests.plugin_kit.conftest import diffloom, installed, python

from diffloom import Noise, Space
from diffloom.testing.standins import TinyDenoiser

PACKAGE = Path(__file__).parent / "diffloom_fieldwork"
PARTS = {
    "schedule": "shifted-cosine",
    "denoiser": "hourglass",
    "autoencoder": "dct",
    "conditioner": "season",
    "sampler": "adams",
    "task": "cloudy",
    "dataset": "fields",
    "transform": "clouds",
    "metric": "ndvi",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the package is installed."""
    folder = tmp_path_factory.mktemp("fieldwork")
    installed(Path(shutil.copytree(PACKAGE, folder / "package")), folder / "site")
    return folder / "site"


def test_every_part_keeps_its_contract_and_none_goes_untested(site: Path, tmp_path: Path) -> None:
    options = ("-v", "-rs", "-p", "no:cacheprovider", "--diffloom", "--diffloom-only", "diffloom-fieldwork")
    done = python("-m", "pytest", *options, sites=[site], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind, name in PARTS.items():
        assert f"[{kind}/fieldwork-{name}/" in done.stdout
    assert "no made-up batch" not in done.stdout
    assert "its defaults are not enough" not in done.stdout


def test_its_recipe_trains_answers_and_is_judged(site: Path, tmp_path: Path) -> None:
    shutil.copy(PACKAGE / "recipe.yaml", tmp_path)
    quick = [word for hook in ("report", "samples", "tensorboard") for word in ("--no-hook", hook)]
    done = diffloom("run", "recipe.yaml", "-q", *quick, sites=[site], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "fieldwork"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.95 * losses[0]
    assert all(0 < line["seen"] < 1 for line in lines if "seen" in line)
    figures = json.loads((run / "evaluation.json").read_text())["figures"]["sampler"]
    assert 0 < figures["ndvi_error"] < 2
    assert "diffloom-fieldwork 0.1.0" in (run / "recipe.lock.yaml").read_text()
    asked = ("sample", "fieldwork", "-n", "2", "--give", "day=200", "--out", "made", "-q", *quick)
    done = diffloom(*asked, sites=[site], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [given["given"] for given in json.loads((tmp_path / "made/samples.json").read_text())["samples"]] == [
        {"day": 200},
        {"day": 200},
    ]
    made = numpy.load(tmp_path / "made" / "00000-seed-0.npy")
    assert made.shape == (2, 16, 16)
    assert float(numpy.abs(made).max()) <= 1


def test_the_parts_are_what_they_say() -> None:
    from tests.packages.diffloom_fieldwork.src.diffloom_fieldwork.autoencoder import BlockDCT
    from tests.packages.diffloom_fieldwork.src.diffloom_fieldwork.conditioner import Season
    from tests.packages.diffloom_fieldwork.src.diffloom_fieldwork.data import Clouds, Fields
    from tests.packages.diffloom_fieldwork.src.diffloom_fieldwork.metric import NDVI
    from tests.packages.diffloom_fieldwork.src.diffloom_fieldwork.schedule import ShiftedCosine

    t = torch.arange(50)
    plain, shifted = (ShiftedCosine(steps=50, size=size).log_snr(t) for size in (64, 256))
    torch.testing.assert_close(shifted, plain - 2 * math.log(4))

    space = Space(channels=2, size=(8, 8))
    x = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    part = BlockDCT(space=space, block=4)
    z = part.encode(x).mode()
    torch.testing.assert_close(part.decode(z), x)
    torch.testing.assert_close(z.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    torch.testing.assert_close(z[:, 0], 4 * torch.nn.functional.avg_pool2d(x[:, 0], 4))

    season = Season(denoiser=TinyDenoiser(space=space))
    told = season.encode({"day": torch.tensor([0.0, 365.25, 182.0])}).vector
    assert told is not None
    torch.testing.assert_close(told[0], told[1])
    assert float((told[0] - told[2]).detach().abs().max()) > 1e-3

    data = Fields(size=16, count=40, transforms=(Clouds(share=0.5),))
    samples = [data.get(index) for index in range(40)]
    assert data.holds == ("image", "day", "valid")
    assert all(float(sample["valid"].mean()) == 0.75 for sample in samples)
    green = {"summer": [], "winter": []}  # type: dict[str, list[float]]
    for sample in samples:
        green["summer" if 91 < sample["day"] < 274 else "winter"].append(float(NDVI().index(sample["image"][None])))
    assert min(green["summer"]) > 0.2 + sum(green["winter"]) / len(green["winter"])


def test_what_clouds_hide_is_not_learnt() -> None:
    from tests.packages.diffloom_fieldwork.src.diffloom_fieldwork.task import Cloudy

    from diffloom.system import Plan, System
    from diffloom.testing.standins import PlainAutoencoder, PlainSampler, vp

    space = Space(channels=2, size=(8, 8))
    system = System(
        Plan(data_space=space, prediction="v"),
        autoencoder=PlainAutoencoder(channels=2),
        task=Cloudy(),
        schedule=vp(),
        denoiser=TinyDenoiser(space=space),
        sampler=PlainSampler(steps=2),
    )
    image = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    (objective,) = system.task.objectives(system)
    for share in (0.0, 1.0):
        loss = objective.loss({"image": image, "valid": torch.full((2, 1, 8, 8), share)}, Noise([0, 1]))
        assert float(loss.terms["seen"]) == share
        assert (float(loss.value.detach()) > 0) == (share > 0)
