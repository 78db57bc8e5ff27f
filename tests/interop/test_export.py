"""What is exported is the same network, autoencoder and schedule in diffusers, and comes back the same."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import typer
from torch import Tensor, nn
from typer.testing import CliRunner

import diffloom
from diffloom.autoencoder import Autoencoder
from diffloom.conditioner import Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import CheckpointError, IncompatibleParts
from diffloom.noise import Noise
from diffloom.prediction import Prediction
from diffloom.sampler import Sampler
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.system import Plan, System, latent_space
from diffloom.testing.standins import PlainSampler, TinyDenoiser
from diffloom_diffusers import export
from diffloom_diffusers.tables import DiffusersSchedule

from .test_models import TIMES, normal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the other library's

IMAGES = Space(channels=3, size=(16, 16))
SMALL: dict[str, Any] = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
RECIPE = """
diffloom: 1
name: tiny
data: {type: digits, size: 8}
schedule: {type: cosine, steps: 50}
denoiser: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, prediction: v}
sampler: {type: ddim, steps: 4}
task: {type: generate}
train: {steps: 2, batch: 4, checkpoint_every: 2}
hooks: []
"""


def stirred(part: Any) -> Any:
    """Return a part with no tensor at a value that could hide a mistake, such as 0 or 1."""
    assert isinstance(part, nn.Module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return part.eval()


def system(
    schedule: Schedule | None = None,
    *,
    denoiser: Denoiser | None = None,
    autoencoder: Autoencoder | None = None,
    conditioners: Mapping[str, Conditioner] | None = None,
    prediction: Prediction = "eps",
    sampler: Sampler | None = None,
) -> System:
    autoencoder = autoencoder or diffloom.build("autoencoder", "identity", space=IMAGES)
    space = latent_space(autoencoder, IMAGES)
    return System(
        Plan(data_space=IMAGES, prediction=prediction),
        autoencoder=autoencoder,
        task=diffloom.build("task", "generate"),
        schedule=schedule or diffloom.build("schedule", "cosine", steps=100),
        denoiser=denoiser or stirred(diffloom.build("denoiser", "unet", space=space, **SMALL)),
        sampler=sampler or PlainSampler(steps=4),
        conditioners=conditioners,
    )


def back(folder: Path, space: Space = IMAGES) -> Denoiser:
    schedule = diffloom.build("schedule", "cosine")
    part: Denoiser = diffloom.build("denoiser", "diffusers", space=space, schedule=schedule, folder=folder)
    return part.eval()


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"attention": (8,), "padding": "symmetric", "eps": 1e-5, "embedding": "adm"},
        {"scale_shift": True, "variance": "learned"},
        {"concat": 2},
    ],
    ids=["plain", "attention", "improved", "concat"],
)
@torch.no_grad()
def test_a_unet_is_the_same_in_diffusers_and_comes_back(parameters: dict[str, Any], tmp_path: Path) -> None:
    net = stirred(diffloom.build("denoiser", "unet", space=IMAGES, **SMALL, **parameters))
    done = export(system(denoiser=net), tmp_path / "out")
    assert done.classes == {"unet": "UNet2DModel", "scheduler": "DDPMScheduler"}
    x, beside = normal(2, 3, 16, 16), normal(2, 2, 16, 16, seed=1)
    wide = torch.cat([x, beside], 1) if "concat" in parameters else x
    told = diffloom.Condition(concat=beside) if "concat" in parameters else None
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "out" / "unet").eval()
    ours = net(x, TIMES, told)
    close(theirs(wide, TIMES).sample, ours)
    close(back(tmp_path / "out")(x, TIMES, told), ours)


@torch.no_grad()
def test_a_unet_with_context_is_the_same_in_diffusers_and_comes_back(tmp_path: Path) -> None:
    net = stirred(diffloom.build("denoiser", "unet", space=IMAGES, **SMALL, attention=(8,), heads=2, context=12))
    done = export(system(denoiser=net), tmp_path / "out")
    assert done.classes["unet"] == "UNet2DConditionModel"
    x, told = normal(2, 3, 16, 16), normal(2, 5, 12, seed=1)
    ours = net(x, TIMES, diffloom.Condition(context=told))
    theirs = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet").eval()
    close(theirs(x, TIMES, told).sample, ours)
    close(back(tmp_path / "out")(x, TIMES, diffloom.Condition(context=told)), ours)


@torch.no_grad()
def test_classes_become_the_networks_own(tmp_path: Path) -> None:
    net = stirred(diffloom.build("denoiser", "unet", space=IMAGES, **SMALL))
    classes = stirred(diffloom.build("conditioner", "class-label", classes=3, denoiser=net))
    done = export(system(denoiser=net, conditioners={"digit": classes}), tmp_path / "out")
    assert not [note for note in done.notes if "digit" in note]
    x, labels = normal(2, 3, 16, 16), torch.tensor([2, 0])
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "out" / "unet").eval()
    code = classes.encode({"label": labels})
    close(theirs(x, TIMES, class_labels=labels).sample, net(x, TIMES, code))
    nobody = torch.tensor([3, 3])
    close(theirs(x, TIMES, class_labels=nobody).sample, net(x, TIMES, classes.null(code)))
    again = back(tmp_path / "out")
    same = diffloom.build("conditioner", "diffusers-class", denoiser=again, null=3)
    close(again(x, TIMES, same.encode({"label": labels})), net(x, TIMES, code))


def test_what_a_conditioner_knows_besides_is_told(tmp_path: Path) -> None:
    net = stirred(diffloom.build("denoiser", "unet", space=IMAGES, **SMALL, attention=(8,), context=12))
    text = diffloom.build("conditioner", "class-label", classes=3, port="context", denoiser=net)
    done = export(system(denoiser=net, conditioners={"words": text}), tmp_path / "out")
    assert any("conditioners.words is not written" in note for note in done.notes)
    assert not (tmp_path / "out" / "model_index.json").exists()


@pytest.mark.parametrize(
    ("name", "parameters", "cls"),
    [
        ("kl", {**SMALL, "latent": 4, "scale": 0.5, "shift": 0.1}, "AutoencoderKL"),
        (
            "kl",
            {**SMALL, "attention": (2,), "scale": [0.5, 1.0, 2.0, 3.0], "shift": [0.0, 0.1, 0.2, 0.3]},
            "AutoencoderKL",
        ),
        ("vq", {**SMALL, "codes": 16, "scale": 0.5}, "VQModel"),
        ("tiny", {"channels": 8, "blocks": (1, 1, 1), "scale": 2.0}, "AutoencoderTiny"),
    ],
)
@torch.no_grad()
def test_an_autoencoder_is_the_same_in_diffusers_and_comes_back(
    name: str, parameters: dict[str, Any], cls: str, tmp_path: Path
) -> None:
    ours = stirred(diffloom.build("autoencoder", name, space=IMAGES, **parameters))
    done = export(system(autoencoder=ours), tmp_path / "out")
    assert done.classes["vae"] == cls
    x = normal(2, 3, 16, 16).clamp(-1, 1)
    theirs = getattr(diffusers, cls).from_pretrained(tmp_path / "out" / "vae").eval()
    code = ours.encode(x)
    raw = code.mean / ours.scale + ours.shift
    answer = theirs.encode(x)
    close(answer.latent_dist.mean if cls == "AutoencoderKL" else answer.latents, raw)
    close(theirs.decode(raw).sample, ours.decode(code.mean))
    again = diffloom.build("autoencoder", "diffusers", space=IMAGES, folder=tmp_path / "out").eval()
    close(again.encode(x).mean, code.mean)
    close(again.decode(code.mean), ours.decode(code.mean))
    if code.logvar is not None:
        close(again.encode(x).logvar, code.logvar)
    assert (again.stride, again.latent_channels) == (ours.stride, ours.latent_channels)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("linear", {"steps": 1000}),
        ("cosine", {"steps": 200}),
        ("sigmoid", {"steps": 50}),
        ("zero-terminal-snr", {"schedule": {"type": "scaled-linear"}}),
    ],
)
def test_a_schedule_has_the_same_table_in_diffusers_and_comes_back(
    name: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    schedule = diffloom.build("schedule", name, **parameters)
    prediction: Prediction = "v" if schedule.zero_terminal_snr else "x0"
    export(system(schedule, prediction=prediction), tmp_path / "out")
    theirs = diffusers.DDPMScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    times = torch.arange(schedule.steps)
    close(theirs.alphas_cumprod.double(), schedule.alpha(times).square())
    assert theirs.config.prediction_type == {"v": "v_prediction", "x0": "sample"}[prediction]
    again = DiffusersSchedule(folder=tmp_path / "out")
    assert again.path == "vp"
    close(again.log_snr(times)[:-1], schedule.log_snr(times)[:-1])
    close(again.alpha(times), schedule.alpha(times))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_has_the_same_table_in_diffusers_and_comes_back(shift: float, tmp_path: Path) -> None:
    schedule = diffloom.build("schedule", "flow", steps=100, shift=shift)
    done = export(system(schedule, prediction="flow"), tmp_path / "out")
    assert done.classes["scheduler"] == "FlowMatchEulerDiscreteScheduler"
    assert any("asks flow networks at the time 1000 σ" in note for note in done.notes)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    times = torch.arange(100)
    close(theirs.sigmas.flip(0).double(), schedule.sigma(times))
    close(DiffusersSchedule(folder=tmp_path / "out").sigma(times), schedule.sigma(times))


@torch.no_grad()
def test_sampling_with_what_was_exported_gives_the_same_images(tmp_path: Path) -> None:
    one = system(prediction="v", sampler=diffloom.build("sampler", "ddpm", steps=10, spacing="leading", clip=1.0))
    export(one, tmp_path / "out")
    net = diffusers.UNet2DModel.from_pretrained(tmp_path / "out" / "unet").eval()
    theirs = diffusers.DDPMScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    assert theirs.config.clip_sample
    theirs.set_timesteps(10)
    y, noise = normal(2, 3, 16, 16), Noise([1, 2])
    for call, t in enumerate(theirs.timesteps):
        y = theirs.step(net(y, t).sample, t, y, generator=noise.generators("diffusers", call)).prev_sample
    ours = diffloom.build("sampler", "diffusers", folder=tmp_path / "out", steps=10)
    batch = {"item": torch.arange(2)}
    close(ours.sample(one.model(batch), one.schedule, normal(2, 3, 16, 16), noise), y)
    schedule = diffloom.build("schedule", "diffusers", folder=tmp_path / "out")
    reread = system(schedule, denoiser=back(tmp_path / "out"), prediction="v", sampler=ours)
    close(ours.sample(reread.model(batch), schedule, normal(2, 3, 16, 16), noise), y)


def test_a_flow_walk_in_diffusers_needs_the_times_that_the_note_tells(tmp_path: Path) -> None:
    schedule = diffloom.build("schedule", "flow", steps=100, shift=3.0)
    one = system(schedule, prediction="flow", sampler=diffloom.build("sampler", "euler", steps=5))
    export(one, tmp_path / "out")
    net = diffusers.UNet2DModel.from_pretrained(tmp_path / "out" / "unet").eval()
    theirs = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    times = one.sampler.grid(schedule).t
    unshifted = ((times + 1) / 100).tolist()
    theirs.set_timesteps(sigmas=unshifted, timesteps=times.tolist())
    y = normal(2, 3, 16, 16)
    with torch.no_grad():
        for t in theirs.timesteps:
            y = theirs.step(net(y, t).sample, t, y).prev_sample
        ours = one.sampler.sample(one.model({"item": torch.arange(2)}), schedule, normal(2, 3, 16, 16))
    close(ours, y)


def test_a_pipeline_of_diffusers_takes_an_exported_pixel_system(tmp_path: Path) -> None:
    export(system(), tmp_path / "out")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    assert type(pipeline).__name__ == "DDPMPipeline"
    images = pipeline(batch_size=2, num_inference_steps=3, output_type="np").images
    assert images.shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"schedule": ("karras", {})}, "family 've'"),
        ({"schedule": ("cosine", {}), "prediction": "flow"}, "know no flow prediction"),
        ({"schedule": ("flow", {}), "prediction": "v"}, "expected prediction: flow"),
        ({"denoiser": TinyDenoiser(space=IMAGES)}, "no model of diffusers is the same as this TinyDenoiser"),
    ],
)
def test_what_diffusers_cannot_express_is_refused_and_nothing_is_written(
    changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    if "schedule" in changed:
        name, parameters = changed["schedule"]
        changed = {**changed, "schedule": diffloom.build("schedule", name, **parameters)}
    with pytest.raises(IncompatibleParts, match=says):
        export(system(**changed), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(CheckpointError, match="not empty"):
        export(system(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_layout_that_does_not_fit_diffusers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = system()
    (layout, *others) = one.denoiser.layouts()
    wrong = type(layout)(layout.name, layout.welds, config={**layout.config, "layers_per_block": 2})
    monkeypatch.setattr(type(one.denoiser), "layouts", lambda self: (wrong, *others))
    with pytest.raises(IncompatibleParts, match="do not fit diffusers' UNet2DModel"):
        export(one, tmp_path / "out")


def test_a_schedule_of_a_scheduler_without_table_is_refused(tmp_path: Path) -> None:
    diffusers.EDMEulerScheduler().save_pretrained(tmp_path)
    with pytest.raises(diffloom.DiffloomError, match="no table of noise levels"):
        diffloom.build("schedule", "diffusers", folder=tmp_path)


def test_the_verb_exports_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    run = diffloom.Run(diffloom.load("tiny.yaml"))
    run.train()
    from diffloom_diffusers.commands import diffloom_commands

    app = typer.Typer()
    diffloom_commands(app=app)
    result = CliRunner().invoke(app, ["tiny", "-o", "out"])
    assert result.exit_code == 0, result.output
    assert "out/unet: UNet2DModel" in result.output
    x = normal(2, 1, 8, 8)
    run.load()
    theirs = diffusers.UNet2DModel.from_pretrained("out/unet").eval()
    with torch.no_grad():
        close(theirs(x, TIMES / 20).sample, run.system.denoiser(x, TIMES / 20))
    assert json.loads(Path("out/scheduler/scheduler_config.json").read_text())["prediction_type"] == "v_prediction"
