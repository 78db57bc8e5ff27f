"""A wrapped scheduler gives what diffusers' own loop gives, keeps its state in tensors, and says what it cannot do."""

import json
import math
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import diffloom
from diffloom.errors import CheckpointError, IncompatibleParts
from diffloom.noise import Noise
from diffloom.path import from_log_snr
from diffloom.prediction import Denoised
from diffloom.sampler import Sampler, State
from diffloom.testing.strategies import Tabled
from diffloom_ddpm.schedules import Cosine, Linear
from diffloom_diffusers.sampler import DiffusersSampler
from diffloom_solvers.derived import ZeroTerminalSNR
from diffloom_solvers.flow import Flow
from diffloom_solvers.karras import Karras

from .loops import SCHEDULE, SD, agree, both, formula, loop, model, start

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the other library's

UNCLIPPED = {"clip_sample": False}
WALKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ddpm": ("DDPMScheduler", UNCLIPPED, {}),
    "ddpm clipped": ("DDPMScheduler", {}, {}),
    "ddpm large": ("DDPMScheduler", {**UNCLIPPED, "variance_type": "fixed_large"}, {}),
    "ddim": ("DDIMScheduler", UNCLIPPED, {}),
    "ddim eta": ("DDIMScheduler", {**UNCLIPPED, "timestep_spacing": "trailing"}, {"eta": 0.7}),
    "ddim of SD": ("DDIMScheduler", {**UNCLIPPED, "set_alpha_to_one": False, "steps_offset": 1}, {}),
    "dpm++ 2m": ("DPMSolverMultistepScheduler", {}, {}),
    "dpm++ 3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}, {}),
    "dpm++ 2m sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}),
    "dpm++ karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, {}),
    "dpm++ 2s": ("DPMSolverSinglestepScheduler", {"lower_order_final": True}, {}),
    "unipc": ("UniPCMultistepScheduler", {}, {}),
    "unipc 3": ("UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh2"}, {}),
    "deis": ("DEISMultistepScheduler", {}, {}),
    "euler": ("EulerDiscreteScheduler", {}, {}),
    "euler karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, {}),
    "euler churn": ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, {"s_churn": 2.0}),
    "euler ancestral": ("EulerAncestralDiscreteScheduler", {}, {}),
    "heun": ("HeunDiscreteScheduler", {}, {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}, {}),
    "dpm2 ancestral": ("KDPM2AncestralDiscreteScheduler", {}, {}),
    "lms": ("LMSDiscreteScheduler", {}, {}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True}, {}),
    "pndm": ("PNDMScheduler", {}, {}),
    "lcm": ("LCMScheduler", UNCLIPPED, {}),
    "tcd": ("TCDScheduler", {}, {"eta": 0.3}),
    "sa": ("SASolverScheduler", {}, {}),
}
SLOW = {"dpm2", "dpm2 ancestral"}  # diffusers takes seconds to make one
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in WALKS]
STOCHASTIC = {"ddpm", "ddpm clipped", "ddpm large", "ddim eta", "dpm++ 2m sde", "euler churn", "euler ancestral"}
STOCHASTIC |= {"dpm2 ancestral", "lcm", "tcd", "sa"}


def sampler(name: str, steps: int = 10, **changed: Any) -> DiffusersSampler:
    scheduler, config, options = WALKS[name]
    return DiffusersSampler(scheduler=scheduler, config={**SD, **config, **changed}, steps=steps, options=options)


@pytest.mark.parametrize("name", EACH)
def test_a_walk_is_that_of_diffusers(name: str) -> None:
    scheduler, config, options = WALKS[name]
    agree(*both(scheduler, config, **options))


@pytest.mark.parametrize(
    "name", ["ddpm", "ddim eta", "dpm++ 2m", "unipc", "deis", "euler", "heun", "plms", "lcm", "sa"]
)
def test_a_walk_with_v_prediction_is_that_of_diffusers(name: str) -> None:
    scheduler, config, options = WALKS[name]
    agree(*both(scheduler, {**config, "prediction_type": "v_prediction"}, steps=7, **options))


def test_the_network_may_say_another_thing_than_the_config() -> None:
    theirs = loop("DDIMScheduler", {**SD, **UNCLIPPED}, 10, start(), Noise([3, 4]))
    other = sampler("ddim", prediction_type="v_prediction")
    agree(other.sample(model(SCHEDULE, "eps"), SCHEDULE, start()), theirs)


@pytest.mark.parametrize(
    ("name", "config", "shift"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 3.0),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, 1.0),
        ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, 3.0),
        (
            "UniPCMultistepScheduler",
            {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3},
            3,
        ),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, 1.0),
    ],
)
def test_a_flow_is_that_of_diffusers(name: str, config: dict[str, Any], shift: float) -> None:
    schedule, noise = Flow(shift=shift), Noise([3, 4])
    ours = DiffusersSampler(scheduler=name, config=config, steps=10)
    got = ours.sample(model(schedule, "flow", per_sigma=1000.0), schedule, ours.start(schedule, start()).x, noise)
    sigma = float(ours.grid(schedule).sigma[0])
    begin = start() * math.hypot(sigma, 1 - sigma)
    agree(got, loop(name, config, 10, begin, noise))


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edm_is_that_of_diffusers(name: str, kind: str) -> None:
    schedule, noise, std = Karras(), Noise([3, 4]), 0.5
    sign = 1 if kind == "epsilon" else -1

    def preconditioned(x: torch.Tensor, t: torch.Tensor) -> Denoised:  # Karras et al. 2022, eq. 7, on α = 1
        sigma = float(schedule.sigma(t))
        size = math.hypot(sigma, std)
        output = formula(x / size, 0.25 * math.log(sigma))
        return Denoised.from_x0((std / size) ** 2 * x + sign * sigma * std / size * output, x, 1.0, sigma)

    ours = DiffusersSampler(scheduler=name, config={"prediction_type": kind}, steps=10)
    x = ours.start(schedule, start()).x
    agree(ours.sample(preconditioned, schedule, x, noise), loop(name, {"prediction_type": kind}, 10, x, noise))


def test_a_learned_variance_is_used_as_diffusers_does() -> None:
    config = {**SD, **UNCLIPPED, "variance_type": "learned_range"}
    scheduler = diffusers.DDPMScheduler(**config)
    scheduler.set_timesteps(10)
    noise, y = Noise([3, 4]), start()
    for call, t in enumerate(scheduler.timesteps):
        output = torch.cat([formula(y, t), formula(-y, t)], 1)
        given = noise.generators("diffusers", call)
        y = scheduler.step(output, t, y, generator=given, return_dict=False)[0]

    def learned(x: torch.Tensor, t: torch.Tensor) -> Denoised:
        output = torch.cat([formula(x, t), formula(-x, t)], 1)
        return Denoised.from_output("eps", output, x, SCHEDULE.alpha(t), SCHEDULE.sigma(t))

    ours = sampler("ddpm", variance_type="learned_range")
    assert ours.needs_spread
    assert not sampler("ddpm").needs_spread
    agree(ours.sample(learned, SCHEDULE, start(), noise), y)


@pytest.mark.parametrize("name", EACH)
def test_a_walk_that_is_saved_and_resumed_is_equal_to_the_bit(name: str) -> None:
    states: list[State] = []
    told = model(SCHEDULE, "eps")
    whole = sampler(name).sample(told, SCHEDULE, start(), Noise([3, 4]), states.append)
    assert len(states) == 10
    for state in states[:9:4]:
        saved = {key: value.clone() for key, value in state.to_tensors().items()}
        resumed = sampler(name).sample(told, SCHEDULE, State.from_tensors(saved), Noise([3, 4]))
        assert torch.equal(resumed, whole), state.index


@pytest.mark.parametrize("name", ["ddpm", "ddim eta", "dpm++ 2m sde", "unipc 3", "euler ancestral", "sa", "lcm"])
def test_an_item_does_not_depend_on_its_batch(name: str) -> None:
    told = model(SCHEDULE, "eps")
    together = sampler(name).sample(told, SCHEDULE, start(), Noise([3, 4]))
    alone = sampler(name).sample(told, SCHEDULE, start()[1:], Noise([4]))
    agree(together[1:], alone, 1e-6)


@pytest.mark.parametrize("name", EACH)
def test_noise_is_declared_where_it_is_drawn(name: str) -> None:
    assert sampler(name).stochastic == (name in STOCHASTIC)


def test_a_stochastic_walk_needs_noise() -> None:
    with pytest.raises(IncompatibleParts, match="draws noise"):
        sampler("ddpm").sample(model(SCHEDULE, "eps"), SCHEDULE, start())


@pytest.mark.parametrize("name", ["ddim", "unipc", "euler", "heun", "plms"])
@pytest.mark.parametrize("path", ["ve", "flow"])
def test_a_walk_on_another_path_is_the_same_walk_in_other_units(name: str, path: Any) -> None:
    log_snr = torch.linspace(7.0, -7.0, 200, dtype=torch.float64)
    ours = sampler(name)
    found = []
    for family in ("vp", path):
        alpha, sigma = from_log_snr(log_snr, family)
        schedule = Tabled(alpha=alpha, sigma=sigma)
        x = ours.start(schedule, start().double()).x

        def told(x: torch.Tensor, t: torch.Tensor, schedule: Tabled = schedule) -> Denoised:
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            return Denoised.from_eps(formula(x / torch.hypot(alpha, sigma), t), x, alpha, sigma)

        found.append(ours.sample(told, schedule, x))
    agree(found[1], found[0])


@pytest.mark.parametrize("name", ["ddim", "dpm++ 2m", "euler"])
def test_a_walk_begins_where_nothing_of_the_data_is_left(name: str) -> None:
    schedule = ZeroTerminalSNR(schedule=Linear(steps=1000))
    ours = sampler(name, timestep_spacing="trailing")
    x = ours.sample(model(schedule, "v"), schedule, start())
    assert bool(x.isfinite().all())
    assert not torch.equal(x, ours.sample(model(schedule, "v"), schedule, start(1)))


def test_a_walk_may_begin_in_the_middle() -> None:
    for name in ("ddim", "dpm++ 2m", "euler", "heun"):
        ours = sampler(name)
        begin = ours.start(SCHEDULE, start(), x0=0.1 * start(1), strength=0.5)
        asked: list[float] = []

        def told(x: torch.Tensor, t: torch.Tensor, asked: list[float] = asked) -> Denoised:
            asked.append(float(t))
            return model(SCHEDULE, "eps")(x, t)

        assert bool(ours.sample(told, SCHEDULE, begin).isfinite().all())
        assert max(asked) == pytest.approx(float(ours.grid(SCHEDULE).t[begin.index]))


def test_config_and_class_come_from_a_folder_unless_they_are_given(tmp_path: Path) -> None:
    diffusers.DDIMScheduler(**SD, clip_sample=False, timestep_spacing="trailing").save_pretrained(
        tmp_path / "scheduler"
    )
    plain = diffloom.build("sampler", "diffusers", folder=tmp_path, steps=5)
    assert plain.grid(SCHEDULE).t.tolist() == [999, 799, 599, 399, 199]
    changed = DiffusersSampler(folder=tmp_path, steps=5, config={"timestep_spacing": "leading"})
    assert changed.grid(SCHEDULE).t.tolist() == [800, 600, 400, 200, 0]
    swapped = DiffusersSampler(folder=tmp_path, scheduler="EulerDiscreteScheduler", steps=5)
    assert [round(float(t)) for t in swapped.grid(SCHEDULE).t] == [999, 799, 599, 399, 199]
    own = DiffusersSampler(folder=tmp_path, scheduler="DDPMScheduler", timesteps=(900.0, 300.0, 20.0))
    assert own.grid(SCHEDULE).t.tolist() == [900, 300, 20]


def test_clipping_is_seen_so_that_latents_are_not_clipped() -> None:
    assert DiffusersSampler(scheduler="DDIMScheduler").clip == 1.0
    assert DiffusersSampler(scheduler="DDIMScheduler", config=UNCLIPPED).clip is None
    assert DiffusersSampler(scheduler="DDPMScheduler", config={**UNCLIPPED}, clip=2.0).clip == 2.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"scheduler": "DimScheduler"}, "has no class of this name"),
        ({"scheduler": "UNet2DModel"}, "not a scheduler"),
        ({}, "no class of this name"),
        ({"scheduler": "RePaintScheduler"}, "does not step from a network's output alone"),
        ({"scheduler": "DDIMScheduler", "config": {"spacing": "leading"}}, "does not take spacing"),
        ({"scheduler": "DDIMScheduler", "options": {"etta": 1.0}}, "does not take etta"),
        ({"scheduler": "DDIMScheduler", "timesteps": (3.0,)}, "does not take timesteps"),
        ({"scheduler": "EulerDiscreteScheduler", "clip": 1.0}, "does not take clip_sample"),
        ({"scheduler": "DDIMScheduler", "config": {"beta_schedule": "round"}}, "refuses its config"),
    ],
)
def test_what_a_scheduler_does_not_take_is_refused_when_it_is_built(given: dict[str, Any], says: str) -> None:
    with pytest.raises(IncompatibleParts, match=says):
        DiffusersSampler(**given)


@pytest.mark.parametrize(
    ("given", "schedule", "says"),
    [
        ({"scheduler": "DDIMScheduler", "steps": 61, "config": {"timestep_spacing": "trailing"}}, Linear(), "got 62"),
        ({"scheduler": "DPMSolverMultistepScheduler", "steps": 20}, Linear(steps=20), "does not walk down"),
        ({"scheduler": "DDIMScheduler", "steps": 51}, Linear(steps=50), "do not fit a schedule of 50"),
        ({"scheduler": "DDIMInverseScheduler"}, Linear(), "does not walk down"),
        ({"scheduler": "CogVideoXDDIMScheduler"}, Linear(), "changes the table"),
        ({"scheduler": "IPNDMScheduler"}, Linear(), "not those of a Gaussian path"),
        ({"scheduler": "EDMEulerScheduler"}, Linear(), "level outside of the schedule"),
        ({"scheduler": "FlowMatchEulerDiscreteScheduler", "config": {"use_dynamic_shifting": True}}, Flow(), "mu"),
        ({"scheduler": "PNDMScheduler"}, ZeroTerminalSNR(schedule=Linear(steps=1000)), "nothing of the data is left"),
    ],
)
def test_what_a_scheduler_cannot_walk_is_refused_before_it_walks(
    given: dict[str, Any], schedule: Any, says: str
) -> None:
    with pytest.raises(IncompatibleParts, match=says):
        DiffusersSampler(**given).grid(schedule)


def test_a_grid_of_another_sampler_is_refused() -> None:
    ours, other = sampler("ddim", 10), sampler("ddim", 5)
    with pytest.raises(IncompatibleParts, match="no grid but its own"):
        ours.step(model(SCHEDULE, "eps"), SCHEDULE, other.grid(SCHEDULE), State(start(), 0), None)


def test_state_that_no_tensor_holds_is_refused() -> None:
    ours = DiffusersSampler(scheduler="FlowMatchLCMScheduler", steps=4)
    with pytest.raises(IncompatibleParts, match="keeps what no tensor can hold"):
        ours.sample(model(Flow(), "flow"), Flow(), start(), Noise([3, 4]))


def test_spacing_is_said_in_the_config_alone() -> None:
    with pytest.raises(diffloom.DiffloomError, match="spacing"):
        diffloom.build("sampler", "diffusers", scheduler="DDIMScheduler", spacing="leading")


def test_a_folder_without_scheduler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder in diffusers' layout"):
        DiffusersSampler(folder=tmp_path)
    (tmp_path / "scheduler_config.json").write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match="no JSON object"):
        DiffusersSampler(folder=tmp_path)


def test_no_walk_leaves_a_trace_in_the_sampler() -> None:
    ours: Sampler = sampler("unipc")
    first = ours.sample(model(Cosine(steps=1000), "eps"), Cosine(steps=1000), start())
    ours.sample(model(SCHEDULE, "eps"), SCHEDULE, start())
    again = ours.sample(model(Cosine(steps=1000), "eps"), Cosine(steps=1000), start())
    assert torch.equal(first, again)
