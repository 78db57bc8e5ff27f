"""The fast samplers number by number against another library, where it is right."""

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from diffloom.sampler import Sampler
from diffloom.schedule import Schedule
from diffloom_ddpm.schedules import Linear, ScaledLinear
from diffloom_solvers.deis import DEIS
from diffloom_solvers.dpm_solver import DPMSolverPP
from diffloom_solvers.euler import Euler
from diffloom_solvers.euler_ancestral import EulerAncestral
from diffloom_solvers.heun import Heun
from diffloom_solvers.lcm import LCM
from diffloom_solvers.pndm import PNDM
from diffloom_solvers.unipc import UniPC

from .fixed import Given, formula, network, start

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the other library's

SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULE = ScaledLinear()


def close(ours: Tensor, theirs: Tensor) -> None:
    scale = float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-4, atol=1e-4 * scale)


def run(scheduler: Any, x: Tensor, **options: Any) -> Tensor:
    """Return what another library's scheduler makes of x, in its own space, with the formula as network."""
    for t in scheduler.timesteps:
        x = scheduler.step(formula(scheduler.scale_model_input(x, t), t), t, x, **options).prev_sample
    return x


def times(scheduler: Any) -> tuple[float, ...]:
    return tuple(float(t) for t in scheduler.timesteps)


@pytest.mark.parametrize("count", [8, 20])
@pytest.mark.parametrize(
    ("sampler", "theirs"),
    [
        ({"variant": "1"}, {"solver_order": 1}),
        ({"variant": "2m"}, {"solver_order": 2}),
        ({"variant": "2m", "form": "heun"}, {"solver_order": 2, "solver_type": "heun"}),
        ({"variant": "3m"}, {"solver_order": 3}),
        ({"variant": "1", "eta": 1.0}, {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"}),
        ({"variant": "2m", "eta": 1.0}, {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}),
        (
            {"variant": "2m", "eta": 1.0, "form": "heun"},
            {"solver_order": 2, "algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        ),
    ],
)
def test_dpm_solver(sampler: dict[str, Any], theirs: dict[str, Any], count: int) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(**SD, final_sigmas_type="zero", **theirs)
    scheduler.set_timesteps(count)
    generator, again = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    noise = Given([torch.randn(2, 3, 4, 4, generator=again) for _ in range(count)])
    ours = DPMSolverPP(timesteps=times(scheduler), **sampler).sample(network(SCHEDULE), SCHEDULE, start(), noise)
    close(ours, run(scheduler, start(), generator=generator))


@pytest.mark.parametrize("count", [8, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("form", ["bh1", "bh2"])
def test_unipc(order: int, form: Any, count: int) -> None:
    # its last step with bh1 to σ = 0 divides by an infinite B, so there both end at the first level
    options: dict[str, Any] = {"final_sigmas_type": "sigma_min", "lower_order_final": False}
    scheduler = diffusers.UniPCMultistepScheduler(**SD, solver_order=order, solver_type=form, **options)
    scheduler.set_timesteps(count)
    sampler = UniPC(timesteps=times(scheduler), solver_order=order, form=form, final="first")
    ours = sampler.sample(network(SCHEDULE), SCHEDULE, start())
    close(ours, run(scheduler, start()))
    clean = diffusers.UniPCMultistepScheduler(**SD, solver_order=order, solver_type="bh2", final_sigmas_type="zero")
    clean.set_timesteps(count)
    sampler = UniPC(timesteps=times(clean), solver_order=order)
    close(sampler.sample(network(SCHEDULE), SCHEDULE, start()), run(clean, start()))


@pytest.mark.xfail(strict=True, reason="diffusers' UniPC with bh1 divides by the infinite length of the step to σ = 0")
def test_diffusers_reaches_clean_data_with_bh1() -> None:
    scheduler = diffusers.UniPCMultistepScheduler(**SD, solver_type="bh1", final_sigmas_type="zero")
    scheduler.set_timesteps(8)
    ours = UniPC(timesteps=times(scheduler), form="bh1").sample(network(SCHEDULE), SCHEDULE, start())
    close(ours, run(scheduler, start()))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(order: int) -> None:
    scheduler = diffusers.DEISMultistepScheduler(**SD, solver_order=order, lower_order_final=False)
    scheduler.set_timesteps(20)
    ours = DEIS(timesteps=times(scheduler), solver_order=order, final="first")
    got: list[Tensor] = []
    ours.sample(network(SCHEDULE), SCHEDULE, start(), on_step=lambda state: got.append(state.x))
    x = start()
    for index, t in enumerate(scheduler.timesteps[:-1]):
        x = scheduler.step(formula(x, t), t, x).prev_sample
        close(got[index], x)


@pytest.mark.parametrize("spacing", ["linspace", "trailing", "leading"])
@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize(("sampler", "name"), [(Euler, "EulerDiscreteScheduler"), (Heun, "HeunDiscreteScheduler")])
def test_euler_and_heun(sampler: type[Sampler], name: str, spacing: str, karras: bool) -> None:
    scheduler = getattr(diffusers, name)(**SD, timestep_spacing=spacing, use_karras_sigmas=karras)
    scheduler.set_timesteps(12)
    levels = list(dict.fromkeys(times(scheduler)))
    ours = sampler(timesteps=tuple(levels))
    grid = ours.grid(SCHEDULE)
    sigma, alpha = float(grid.sigma[0]), float(grid.alpha[0])
    theirs = run(scheduler, start() * sigma / alpha)
    close(ours.sample(network(SCHEDULE), SCHEDULE, start() * sigma), theirs)


def test_euler_ancestral() -> None:
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**SD, timestep_spacing="linspace")
    scheduler.set_timesteps(12)
    generator, again = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    noise = Given([torch.randn(2, 3, 4, 4, generator=again) for _ in range(12)])
    ours = EulerAncestral(timesteps=times(scheduler))
    grid = ours.grid(SCHEDULE)
    theirs = run(scheduler, start() * float(grid.sigma[0] / grid.alpha[0]), generator=generator)
    close(ours.sample(network(SCHEDULE), SCHEDULE, start() * float(grid.sigma[0]), noise), theirs)


@pytest.mark.parametrize(
    ("warmup", "count"), [("plms", 1), ("plms", 10), ("plms", 50), ("runge-kutta", 10), ("runge-kutta", 50)]
)
def test_pndm(warmup: Any, count: int) -> None:
    scheduler = diffusers.PNDMScheduler(
        beta_start=1e-4, beta_end=0.02, skip_prk_steps=warmup == "plms", set_alpha_to_one=True
    )
    scheduler.set_timesteps(count)
    schedule: Schedule = Linear()
    ours = PNDM(steps=count, spacing="leading", warmup=warmup)
    close(ours.sample(network(schedule), schedule, start()), run(scheduler, start()))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_lcm(count: int) -> None:
    scheduler = diffusers.LCMScheduler(**SD, original_inference_steps=50, set_alpha_to_one=True)
    scheduler.set_timesteps(count)
    generator, again = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    noise = Given([torch.randn(2, 3, 4, 4, generator=again) for _ in range(count)])
    ours = LCM(steps=count)
    assert ours.grid(SCHEDULE).t.tolist() == list(times(scheduler))
    close(ours.sample(network(SCHEDULE), SCHEDULE, start(), noise), run(scheduler, start(), generator=generator))
