"""Controllable feature wrapping: w = 0 is the plain decoder, one site is affine in w, and the published size."""

import re
from pathlib import Path

import pytest
import torch

import diffloom
from diffloom import Space
from diffloom.errors import DiffloomError, IncompatibleParts
from diffloom_ldm.autoencoders.kl import KL
from diffloom_ldm.tasks.autoencode import Adversarial
from diffloom_stablesr.wrap_task import WrapFeatures
from diffloom_stablesr.wrapping import FeatureWrapping, Fusion

SPACE = Space(3, (32, 32))


def wrapped(fidelity: float = 0.5, multipliers: tuple[int, ...] = (1, 1, 2)) -> FeatureWrapping:
    torch.manual_seed(0)
    base = KL(space=SPACE, channels=8, multipliers=multipliers, blocks=1, groups=4, scale=0.5, shift=0.1)
    return FeatureWrapping(base=base, fidelity=fidelity, blocks=1, growth=4, groups=4).eval()


def given() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, 8, 8, generator=generator), torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1


@torch.no_grad()
def test_without_fidelity_it_is_the_plain_decoder_bit_for_bit() -> None:
    part = wrapped(0.0)
    z, image = given()
    assert torch.equal(part.restore(z, image), part.base.decode(z))
    assert not torch.allclose(wrapped(1.0).restore(z, image), part.base.decode(z))


@torch.no_grad()
def test_latents_are_those_of_the_base() -> None:
    part = wrapped()
    _, image = given()
    assert torch.equal(part.encode(image).mode(), part.base.encode(image).mode())
    assert (part.stride, part.latent_channels, part.is_scaled()) == (4, 4, True)


@torch.no_grad()
def test_what_one_site_makes_is_affine_in_w() -> None:
    part = wrapped()
    z, image = given()
    seen = part.base.encoder.features(image)
    assert set(part.fusions) == {"1"}
    found: list[torch.Tensor] = []

    def watch(level: int, made: torch.Tensor) -> torch.Tensor:
        if level == 1:
            found.extend(made + w * part.fusions["1"](seen[1], made) for w in (0.0, 0.5, 1.0))
        return made

    part.base.picture(z / part.base.scale + part.base.shift, watch)
    torch.testing.assert_close(found[1] - found[0], found[2] - found[1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_small_image_matters_more_the_larger_w() -> None:
    z, image = given()
    gaps = []
    for fidelity in (0.0, 0.25, 1.0):
        part = wrapped(fidelity)
        gaps.append(float((part.restore(z, image) - part.restore(z, -image)).abs().mean()))
    assert gaps[0] == 0
    assert gaps[0] < gaps[1] < gaps[2]


def test_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        fusions = [Fusion(channels, blocks=2, growth=32, groups=32) for channels in (512, 256)]
    assert sum(p.numel() for fusion in fusions for p in fusion.parameters()) == 44_393_728  # 44.39 M


def test_levels_between_the_finest_and_the_coarsest_are_wrapped() -> None:
    assert set(wrapped(multipliers=(1, 1, 2, 2)).fusions) == {"1", "2"}
    with pytest.raises(IncompatibleParts, match="3 levels or more"):
        wrapped(multipliers=(1, 2))


@torch.no_grad()
def test_large_images_are_restored_in_windows() -> None:
    part = wrapped()
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(1, 4, 14, 10, generator=generator)
    image = torch.rand(1, 3, 56, 40, generator=generator)
    whole = part.restore(z, image)
    part.tile = 8
    assert part.restore(z, image).shape == whole.shape
    part.tile = 16
    assert torch.equal(part.restore(z, image), whole)


def test_the_encoder_learns_nothing_from_it() -> None:
    part = wrapped()
    z, image = given()
    torch.autograd.backward(part.restore(z, image).square().mean())
    assert all(p.grad is None for p in part.base.encoder.parameters())
    assert all(p.grad is not None for p in part.fusions.parameters())


SECOND_STAGE = """\
diffloom: 1
name: wrap
data:
  type: digits
  size: 16
  transforms: [{type: degrade, scale: 4, pure: 1.0}]
autoencoder:
  type: feature-wrapping
  blocks: 1
  growth: 4
  groups: 4
  base: {type: kl, channels: 8, multipliers: [1, 1, 2], blocks: 1, groups: 4, scale: 0.5, latent: 2, freeze: true}
schedule:  {type: scaled-linear, steps: 1000}
denoiser:  {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, freeze: true}
conditioners:
  small:
    type: time-aware-sft
    channels: 8
    multipliers: [1, 1]
    blocks: 1
    attention: [2]
    heads: 1
    width: 8
    hidden: 8
    freeze: true
sampler:   {type: ddim, steps: 2}
task:      {type: wrap-features, adversarial: {start: 1, adaptive: false, layers: 1, channels: 4}}
train:     {steps: 3, batch: 4, checkpoint_every: 3, lr: 1.0e-3}
hooks:     []
"""


def test_the_second_stage_trains_fusions_and_discriminator_alone(tmp_path: Path) -> None:
    file = tmp_path / "wrap.yaml"
    file.write_text(SECOND_STAGE)
    recipe = diffloom.load(file)
    recipe.check()
    run = diffloom.Run(recipe, tmp_path / "run")
    before = {name: p.clone() for name, p in run.system.named_parameters()}
    run.train()
    moved = {name for name, p in run.system.named_parameters() if not torch.equal(p, before[name])}
    assert {name.rsplit(".fusions.")[0] for name in moved if "fusions" in name} == {"autoencoder"}
    assert all(name.startswith(("autoencoder.fusions.", "task.discriminator.")) for name in moved)
    answer = run.system.predict({"low_res": torch.zeros(1, 1, 4, 4)}, seeds=[1])["image"]
    assert answer.shape == (1, 1, 16, 16)


def test_a_second_stage_needs_a_wrapped_autoencoder(tmp_path: Path) -> None:
    file = tmp_path / "wrap.yaml"
    wrapping = re.compile(r"autoencoder:\n  type: feature-wrapping\n.*?  base: ", re.DOTALL)
    file.write_text(wrapping.sub("autoencoder: ", SECOND_STAGE))
    with pytest.raises(DiffloomError, match="there are no fusions to train"):
        diffloom.load(file).check()


def test_an_adaptive_weight_is_refused() -> None:
    with pytest.raises(IncompatibleParts, match="needs a last layer that learns"):
        WrapFeatures(adversarial=Adversarial(adaptive=True))
