"""Parts that are each right and together wrong are refused when a recipe is checked, with reason and remedy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import diffloom
from diffloom.errors import DiffloomError
from diffloom.testing.standins import PlainAutoencoder

RECIPE = """\
diffloom: 1
name: sound
data:      {type: digits, size: 8}
schedule:  {type: cosine, steps: 40}
autoencoder: {type: identity}
denoiser:  {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, prediction: v}
conditioners:
  digit:   {type: class-label, classes: 10, drop: 0.1, guidance: 2.0}
sampler:   {type: ddim, steps: 5}
task:      {type: generate}
train:     {steps: 4, batch: 8}
eval:      {samplers: {other: {type: heun, steps: 4}}}
hooks:     []
"""


class Unlimited(PlainAutoencoder):
    """Latents without limits."""

    bounded = False


@pytest.fixture
def sound(tmp_path: Path) -> Iterator[Path]:
    """Return the file of a recipe without contradictions, beside an autoencoder whose latents have no limits."""
    file = tmp_path / "sound.yaml"
    file.write_text(RECIPE)
    with diffloom.registry.add("autoencoder", "unlimited", Unlimited):
        yield file


def problems(file: Path, **changes: object) -> list[str]:
    """Return what a check says of a recipe with some roles or values replaced."""
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    try:
        diffloom.load(file, overrides=overrides).check()
    except DiffloomError as error:
        return str(error).splitlines()
    return []


DIGIT = {"type": "class-label", "classes": 10, "drop": 0.1, "guidance": 2.0}
ZERO = {"type": "zero-terminal-snr", "schedule": {"type": "cosine", "steps": 40}}

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a part of the walk that holds no step": (
        {"conditioners__digit": {**DIGIT, "start": 0.3, "end": 0.5}},
        "none of the 5 steps of sampler lies between",
        "at least 0.2 apart",
    ),
    "noise predicted where no data is left": (
        {"schedule": ZERO, "denoiser__prediction": "eps"},
        "denoiser.prediction: predicting eps is undefined",
        "set denoiser.prediction to v",
    ),
    "more steps than levels": ({"sampler__steps": 41}, "sampler: 41 sampling steps do not fit", "to 40 at most"),
    "more steps than levels, in eval": (
        {"eval__samplers__other__steps": 41},
        "eval.samplers.other: 41 sampling steps do not fit",
        "to 40 at most",
    ),
    "times outside of the schedule": (
        {"sampler": {"type": "ddim", "timesteps": [50, 20, 3]}},
        "sampler: a sampler's times do not lead from noise to data",
        "correct `timesteps`",
    ),
    "times that rise": (
        {"sampler": {"type": "ddim", "timesteps": [3, 20]}},
        "sampler: a sampler's times do not lead from noise to data",
        "correct `timesteps`",
    ),
    "churn at noise levels that there are not": (
        {"sampler": {"type": "edm", "steps": 4, "churn": 10, "churn_min": 1.0e6}},
        "sampler: the window of churn lies outside of the schedule's noise levels",
        "move the window",
    ),
    "an empty window of churn": (
        {"eval__samplers__other": {"type": "edm", "churn": 1, "churn_min": 3.0, "churn_max": 2.0}},
        "no noise level lies in the window of churn",
        "exchange them",
    ),
    "a window of no churn": (
        {"sampler": {"type": "edm", "steps": 4, "noise_scale": 1.003}},
        "there is no churn whose noise could be limited or scaled",
        "set churn",
    ),
    "two kinds of noise": (
        {"sampler__eta": 0.5, "sampler__noise": "large"},
        "the larger variance is no member of the family that eta chooses from",
        "remove eta",
    ),
    "noise of a deterministic solver": (
        {"sampler": {"type": "dpm-solver++", "variant": "2s", "eta": 1.0, "steps": 4}},
        "the singlestep variant is deterministic",
        "use variant: 2m",
    ),
    "a form that a variant has not": (
        {"sampler": {"type": "dpm-solver++", "variant": "3m", "form": "heun", "steps": 4}},
        "only one variant comes in two forms",
        "remove form",
    ),
    "latents of a size that nobody knows": (
        {"autoencoder": {"type": "kl", "channels": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4}},
        "autoencoder: nothing says how large the latents of this autoencoder are",
        "autoencoder.weights: run:NAME",
    ),
    "tiles smaller than what a pixel sees": (
        {"autoencoder": {"type": "tiny", "channels": 8, "blocks": [1, 1]}, "sample__tile": 3},
        "sample.tile: the tiles are too small for this autoencoder",
        "at least 14 latents",
    ),
    "tiles of pixels": ({"sample__tile": 64}, "sample.tile: this autoencoder has no tiles", "expected null"),
    "clipped latents": (
        {"autoencoder": {"type": "unlimited", "channels": 1}, "sampler__clip": 1.0},
        "sampler.clip: clipping x0 makes no sense in a latent space",
        "set sampler.clip to null",
    ),
    "clipped data": (
        {"eval__samplers__other__clip": 0.5},
        "eval.samplers.other.clip: clipping x0 cuts off values that the data have",
        "to 1",
    ),
    "a learned variance that is not learned": (
        {"sampler": {"type": "ddpm", "variance": "learned-range"}},
        "sampler: the sampler asks for a learned variance, and the denoiser gives none",
        "use a fixed one",
    ),
    "a task whose network is not told": (
        {"task": {"type": "inpaint"}, "data": {"type": "digits", "size": 8, "transforms": [{"type": "random-mask"}]}},
        "task: the network must be told of 'mask', and no conditioner reads it",
        "add one, such as `mask` or `image`",
    ),
    "a transform that reads what is not there": (
        {"data": {"type": "digits", "size": 8, "transforms": [{"type": "low-res"}, {"type": "boxes"}]}},
        "data.transforms[1]: the transform reads 'mask', and no sample has it by then",
        "put the transform that makes it before this one",
    ),
    "a null that is never trained": (
        {"conditioners__digit__drop": 0.0},
        "conditioners.digit: guidance compares with a network that is told nothing",
        "set conditioners.digit.drop to 0.1",
    ),
    "a condition that is never trained": (
        {"conditioners__digit__drop": 1.0},
        "conditioners.digit: training never tells the network this condition",
        "set conditioners.digit.drop to 0.1",
    ),
    "a schedule that leaves data in its noise": (
        {"schedule": {"type": "linear", "steps": 40}},
        "schedule: the schedule ends with data still to be seen",
        "give the schedule more noise",
    ),
    "a walk that begins among data": (
        {"sampler__spacing": "leading", "sampler__steps": 1},
        "sampler: the first level that the sampler visits is not noisy enough",
        "use spacing: trailing",
    ),
    "rescaling a path that does not preserve variance": (
        {"schedule": {"type": "zero-terminal-snr", "schedule": {"type": "karras"}}},
        "only a variance-preserving schedule can be rescaled",
        "nest a schedule such as linear",
    ),
    "a scaled linear schedule too short to scale": (
        {"schedule": {"type": "linear", "steps": 10, "scaled": True}},
        "the scaled β of the last level is not a variance",
        "use more than 20 steps",
    ),
    "a consistency model that ends before clean data": (
        {"sampler": {"type": "lcm", "final": "first"}},
        "a consistency model jumps to clean data",
        "remove it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_contradiction_is_refused_with_reason_and_remedy(sound: Path, name: str) -> None:
    changes, reason, remedy = REFUSED[name]
    found = [line for line in problems(sound, **changes) if reason in line]
    assert len(found) == 1, problems(sound, **changes)
    assert remedy in found[0]


def test_the_sound_recipe_is_accepted(sound: Path) -> None:
    assert problems(sound) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": ZERO},
        {"schedule": {"type": "linear", "steps": 40, "scaled": True}},
        {"autoencoder": {"type": "unlimited", "channels": 1}},
        {"sampler__clip": 1.0},
        {
            "denoiser__variance": "learned",
            "task__loss": "hybrid",
            "sampler": {"type": "ddpm", "variance": "learned-range"},
        },
        {"sampler": {"type": "edm", "steps": 4, "churn": 10, "churn_min": 0.05, "churn_max": 50.0}},
        {"conditioners__digit__drop": 0.0, "conditioners__digit__guidance": None},
        {"conditioners__digit__drop": 0.0, "conditioners__digit__guidance": 1.0},
        {"conditioners__digit__drop": 0.0, "train__steps": 0},
        {"conditioners__digit__drop": 0.0, "conditioners__digit__freeze": True},
        {"sampler": {"type": "ddim", "timesteps": [39, 20, 3]}},
        {"schedule": {"type": "karras"}, "sampler": {"type": "heun", "spacing": "karras", "steps": 4}},
        {"schedule": {"type": "flow", "steps": 40}, "sampler": {"type": "unipc", "steps": 4}},
    ],
)
def test_what_is_like_a_contradiction_and_none_is_accepted(sound: Path, changes: dict[str, object]) -> None:
    assert problems(sound, **changes) == []


def test_contradictions_come_all_at_once(sound: Path) -> None:
    found = problems(
        sound,
        schedule=ZERO,
        denoiser__prediction="eps",
        sampler__steps=41,
        sampler__clip=0.5,
        conditioners__digit__drop=0.0,
        eval__samplers__other__steps=50,
    )
    assert len(found) == 5
