"""Every recipe that comes with diffloom fits together; the big one is the paper's."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import diffloom
from diffloom import Run, checkpoint
from diffloom.autoencoder import ScaledAutoencoder
from diffloom.checkpoint import Checkpoint
from diffloom.recipe.recipe import shipped
from tests.recipes.taesd import taesd

RECIPES = sorted(shipped())
SIZES = {
    "sd15": {"denoiser": 859_520_964, "autoencoder": 83_653_863},
    "controlnet-sd15": {"denoiser": 859_520_964, "conditioners.control": 361_279_120},
    "sd21": {"denoiser": 865_910_724, "autoencoder": 83_653_863},
    "crs-diff": {
        "denoiser": 859_520_964,
        "conditioners.metadata": 2_876_160,
        "conditioners.content": 47_213_568,
        "conditioners.maps": 419_462_288,
    },
    "stablesr-infer": {"denoiser": 865_910_724, "conditioners.small": 105_514_240},
    "ldm-celebahq": {"denoiser": 274_056_163, "autoencoder": 55_322_782},
    "ldm-churches": {"denoiser": 294_966_916},
    "ldm-imagenet": {"denoiser": 400_920_579, "conditioners.class": 512_512},
    "ldm-text": {"denoiser": 872_300_484, "conditioners.caption": 542_895_360},
    "ldm-layout": {"denoiser": 246_277_379, "conditioners.layout": 54_656_000},
    "ldm-semantic": {"denoiser": 215_229_315, "conditioners.map": 546},
    "ldm-inpaint": {"denoiser": 387_245_827, "autoencoder": 53_219_486},
    "ldm-super-resolution": {"denoiser": 113_622_563},
}
_RUN = re.compile(r"run:([\w-]+)")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stand-ins for the data that recipes ask for: as many classes, other pictures. Runs in it are made once."""
    tmp_path = tmp_path_factory.mktemp("data")
    taesd(tmp_path / "weights")
    for name, classes in (("scenes", 12), ("cifar", 1)):
        for c in range(classes):
            folder = tmp_path / name / f"class{c:02}"
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 36), (20 * c, 100, 50)).save(folder / "one.png")
    for name, classes, side in (("scenes", 12, 40), ("scenes256", 7, 40), ("sr", 4, 200)):  # enough for every part
        for number in range(4 * classes):
            folder = tmp_path / name / f"class{number % classes:02}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (side, side), (5 * number, 100, 50)).save(folder / f"{number}.png")
    for name, classes in (("celebahq", 1), ("churches", 1), ("places", 1), ("imagenet", 2), ("laion", 1)):
        for c in range(classes):
            folder = tmp_path / name / str(c)
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 36)).save(folder / "one.png")
            (folder / "one.txt").write_text("a caption")
    for name, parts in (
        ("segmentation", "image mask"),
        ("layout", "image mask"),
        ("landscapes", "image mask"),
        ("disaster", "pre post"),
        ("rsicd", "image mask depth"),
    ):
        for part in parts.split():
            (tmp_path / name / part).mkdir(parents=True)
            for number in range(8):
                picture = Image.new("L", (128, 128), number % 3).convert("L" if part in ("mask", "depth") else "RGB")
                picture.save(tmp_path / name / part / f"{number}.png")
    lines = [json.dumps({"name": str(number), "caption": f"scene {number}"}) for number in range(8)]
    (tmp_path / "disaster" / "captions.jsonl").write_text("\n".join(lines))
    columns = {"date": "2016-07-15", "gsd": 0.5, "cloud_cover": 10, "lat": 34.05, "lon": None}
    lines = [json.dumps({"name": str(number), "caption": "a scene", **columns}) for number in range(8)]
    (tmp_path / "rsicd" / "captions.jsonl").write_text("\n".join(lines))
    for part, mode in (("vis", "RGB"), ("ir", "L")):
        (tmp_path / "ivf" / part).mkdir(parents=True)
        for number in range(20):
            picture = Image.new("L", (72, 64), 10 * number).convert(mode)
            picture.save(tmp_path / "ivf" / part / f"roadscene_{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFLOOM_DATA", str(tmp_path))
        patch.setenv("CIFAR10", str(tmp_path / "cifar"))
        patch.setenv("PICTURES", str(tmp_path / "laion"))
        patch.setenv("OPENIMAGES", str(tmp_path / "cifar"))
        patch.chdir(tmp_path)
        yield tmp_path


@pytest.fixture(scope="module")
def given_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the Stable Diffusion versions that recipes sample with."""
    from tests.recipes.stable_diffusion import clip_vision, controlnet, stable_diffusion, stablesr

    folder = tmp_path_factory.mktemp("weights")
    whole = {name: stable_diffusion(folder / name, two=name == "SD21") for name in ("SD15", "SD21")}
    rest = {"CONTROLNET": controlnet(folder / "controlnet"), "CLIP_L14": clip_vision(folder / "CLIP_L14")}
    return whole | rest | {"STABLESR": stablesr(folder / "stablesr.safetensors")}


def pretend_before(name: str) -> None:
    """Leave the checkpoint of every run that a recipe begins with, and of those that these begin with, untrained."""
    for before in dict.fromkeys(_RUN.findall(json.dumps(diffloom.load(name).resolved()))):
        if before != name and not Path("runs", before).exists():
            pretend_before(before)
            run = Run(diffloom.load(before, overrides={"hooks": []}))
            if isinstance(run.system.autoencoder, ScaledAutoencoder):
                run.system.autoencoder.measured.fill_(True)
            roles = run.system.roles().items()
            weights = {f"{role}:{key}": value for role, part in roles for key, value in part.state_dict().items()}
            made = Checkpoint({"weights": weights, "average": weights}, {"step": 1, "updates": 1})
            checkpoint.save(run.checkpoints, 1, made, keep=2)


def test_the_recipes_are_found() -> None:
    assert {"quickstart", "ddpm-digits", "ddim-digits", "ddpm-cifar10", "scenes"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_passes_its_check(
    name: str, data: Path, given_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, folder in given_weights.items():
        monkeypatch.setenv(variable, str(folder))
    pretend_before(name)
    recipe = diffloom.load(name)
    report = recipe.check()
    assert report.samples > 0
    assert (report.evaluations > 0) == (recipe.part("sampler") is not None)
    assert SIZES.get(name, {}).items() <= report.parameters.items()
    assert (report.trainable > 0) == (recipe.header.train.steps > 0)


def test_the_cifar_recipe_is_the_papers(data: Path) -> None:
    recipe = diffloom.load("ddpm-cifar10")
    assert recipe.check().parameters["denoiser"] == 35_746_307
    schedule = recipe.registry.instantiate(recipe.parts["schedule"])
    assert isinstance(schedule, diffloom.Schedule)
    assert float(schedule.beta(0)) == pytest.approx(1e-4)
    assert float(schedule.beta(999)) == pytest.approx(0.02)
    train = recipe.header.train
    assert (train.lr, train.batch, train.warmup, train.ema, train.clip) == (2e-4, 128, 5000, 0.9999, 1.0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_points_editors_to_the_schema(name: str) -> None:
    assert shipped()[name].read_text().startswith("# yaml-language-server: $schema=recipe.schema.json\n")


def test_the_committed_schema_is_fresh() -> None:
    """Parts of installed strangers are left out: the file is about what comes with diffloom."""
    committed = json.loads((shipped()["quickstart"].parent / "recipe.schema.json").read_text())
    strangers = {e.distribution for e in diffloom.registry.entries() if e.distribution not in (None, "diffloom")}
    environment = {**os.environ, "DIFFLOOM_DISABLE_PLUGINS": ",".join(sorted(filter(None, strangers)))}
    command = [sys.executable, "-m", "diffloom", "schema"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(made.stdout) == committed, "run: diffloom schema -o recipes/recipe.schema.json"


@pytest.mark.slow
def test_the_quickstart_writes_the_digits_it_is_asked_for(tmp_path: Path) -> None:
    run = Run(diffloom.load("quickstart", overrides={"hooks": []}), tmp_path / "quickstart")
    run.train()
    assert run.sample()["image"].shape == (100, 1, 16, 16)
    assert run.evaluate()["sampler"]["accuracy"] >= 0.9
