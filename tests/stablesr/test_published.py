"""What StableSR's paper and code fix about walks: which levels are kept, which times are told, and what guidance is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffloom
from diffloom import Sampler, Schedule, Space
from diffloom.condition import Condition
from diffloom_ddpm.identity import Identity
from diffloom_stablesr.time_aware import TimeAwareSFT
from diffloom_unet import UNet
from tests.stablesr.test_task import RECIPE


def schedule() -> Schedule:
    made = diffloom.build("schedule", "scaled-linear", steps=1000, beta_start=0.00085, beta_end=0.012)
    assert isinstance(made, Schedule)
    return made


def ancestral() -> Sampler:
    made = diffloom.build("sampler", "ddpm", steps=200, spacing="linspace")
    assert isinstance(made, Sampler)
    return made


def test_200_levels_are_kept_and_their_signal_is_the_originals() -> None:
    path = schedule()
    grid = ancestral().grid(path)
    kept = torch.as_tensor(grid.t).long()
    assert (len(kept), int(kept[0]), int(kept[-1])) == (200, 999, 0)
    assert kept.flip(0).tolist() == [round(i * 999 / 199) for i in range(200)]
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    kept_signal = torch.cumprod(1 - betas, 0)[kept]
    torch.testing.assert_close(torch.as_tensor(path.alpha(kept)).double().square(), kept_signal, rtol=1e-9, atol=0)
    rederived = 1 - kept_signal[:-1] / kept_signal[1:]  # β of the shortened chain, from one kept level to the next
    for index in (0, 100, 198):
        _, spread = path.transition(kept[index], kept[index + 1])
        assert float(spread) == pytest.approx(float(rederived[index]), rel=1e-9)


def test_networks_are_told_the_original_times(tmp_path: Path) -> None:
    file = tmp_path / "enlarge.yaml"
    file.write_text(RECIPE.replace("{type: ddim, steps: 3}", "{type: ddpm, steps: 4, spacing: linspace}"))
    system = diffloom.load(file).build()
    times: dict[str, list[float]] = {"denoiser": [], "encoder": []}

    def watch(name: str) -> Any:
        return lambda module, args: times[name].append(float(args[1].reshape(-1)[0]))

    system.denoiser.register_forward_pre_hook(watch("denoiser"))
    conditioner = system.conditioners["small"]
    assert isinstance(conditioner, TimeAwareSFT)
    conditioner.encoder.register_forward_pre_hook(watch("encoder"))
    system.predict({"low_res": torch.zeros(1, 1, 4, 4)}, seeds=[0])
    assert times["denoiser"] == times["encoder"] == [999, 666, 333, 0]


class Four(Identity):
    """Pixels of four bands as latents."""

    latent_channels = 4


@torch.no_grad()
def test_four_levels_give_features_of_one_width_at_every_eighth() -> None:
    space = Space(4, (64, 64))
    net = UNet(space=space, channels=8, multipliers=(1, 2, 2, 2), blocks=1, groups=4)
    part = TimeAwareSFT(
        denoiser=net, autoencoder=Four(space=space), scale=1, channels=8, multipliers=(1, 1, 2, 2), blocks=1,
        attention=(), heads=1, width=8, hidden=4,
    )  # fmt: skip
    maps = part.encoder(torch.randn(1, 4, 64, 64), torch.tensor(5.0))
    assert {s: tuple(m.shape[1:]) for s, m in maps.items()} == {s: (8, 64 // s, 64 // s) for s in (1, 2, 4, 8)}


GUIDED = RECIPE.replace(
    "conditioners:\n",
    "conditioners:\n  digit: {type: class-label, classes: 10, guidance: SCALE}\n",
)


def walked(folder: Path, label: int, scale: float | None) -> Tensor:
    """Return the answer for a label, guided by a scale, or told it without any guidance."""
    file = folder / "guided.yaml"
    file.write_text(GUIDED.replace(", guidance: SCALE", "" if scale is None else f", guidance: {scale}"))
    system = diffloom.load(file).build()
    assert bool(system.guidance()) == (scale is not None)
    with torch.no_grad():
        for index, parameter in enumerate(system.parameters()):
            generator = torch.Generator().manual_seed(index)
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    batch = {"low_res": torch.full((1, 1, 4, 4), 0.3), "label": torch.tensor([label])}
    answer: Tensor = system.predict(batch, seeds=[3])["image"]
    return answer


def test_a_guidance_of_1_is_the_single_pass_and_0_the_pass_that_is_led_away_from(tmp_path: Path) -> None:
    found = {(scale, label): walked(tmp_path, label, scale) for scale in (None, 0.0, 1.0, 3.0) for label in (2, 7)}
    assert torch.equal(found[1.0, 2], found[None, 2])
    assert torch.equal(found[0.0, 2], found[0.0, 7])  # the empty prompt alone: who is asked for does not matter
    assert not torch.allclose(found[1.0, 2], found[1.0, 7])
    assert not torch.allclose(found[3.0, 2], found[1.0, 2])


def test_the_small_image_is_looked_at_once_a_step_whatever_is_guided(tmp_path: Path) -> None:
    file = tmp_path / "guided.yaml"
    file.write_text(GUIDED.replace("SCALE", "3.0"))
    system = diffloom.load(file).build()
    part, asked = system.conditioners["small"], []
    assert isinstance(part, TimeAwareSFT)
    part.encoder.register_forward_pre_hook(lambda module, args: asked.append(len(args[0])))
    system.predict({"low_res": torch.zeros(2, 1, 4, 4), "label": torch.tensor([1, 2])}, seeds=[0, 1])
    assert asked == [2, 2, 2]  # three steps, and each time the two images, not two branches of both
    assert Condition().affine == {}
