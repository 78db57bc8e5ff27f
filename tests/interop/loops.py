"""diffusers' own loop, and a network that is a plain formula: what the wrapped schedulers must agree with."""

import inspect
import math
from typing import Any

import diffusers
import torch
from torch import Tensor

from diffloom.noise import Noise
from diffloom.prediction import Denoised, Prediction
from diffloom.sampler import Model
from diffloom.schedule import Schedule
from diffloom_ddpm.schedules import ScaledLinear
from diffloom_diffusers.sampler import DiffusersSampler

SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULE = ScaledLinear()
KINDS: dict[str, Prediction] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


def formula(x: Tensor, t: Tensor | float) -> Tensor:
    """Return what the "network" says: smooth, not linear, different at every time, and of the size of noise."""
    return torch.tanh(1.3 * x + 0.7 * torch.cos(x) - float(t) / 900)


def model(schedule: Schedule, kind: Prediction, *, per_sigma: float | None = None) -> Model:
    """Return the formula as a model on a schedule, told t or a multiple of σ_t."""

    def said(x: Tensor, t: Tensor) -> Denoised:
        time = t if per_sigma is None else per_sigma * schedule.sigma(t)
        return Denoised.from_output(kind, formula(x, time), x, schedule.alpha(t), schedule.sigma(t))

    return said


def start(seed: int = 0) -> Tensor:
    """Return x_T (2, 3, 4, 4) of unit variance."""
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def loop(name: str, config: dict[str, Any], steps: int, y: Tensor, noise: Noise, **options: Any) -> Tensor:
    """Return what diffusers' own loop makes of a sample in the scheduler's space."""
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(steps)
    drawn = "generator" in inspect.signature(scheduler.step).parameters
    for call, t in enumerate(scheduler.timesteps):
        shown = scheduler.scale_model_input(y, t) if hasattr(scheduler, "scale_model_input") else y
        given = {"generator": noise.generators("diffusers", call)} if drawn else {}
        y = scheduler.step(formula(shown, t), t, y, return_dict=False, **given, **options)[0]
    return y


def in_sigma_space(name: str, config: dict[str, Any], steps: int) -> float:
    """Return what a sample of unit variance is multiplied with to be in the scheduler's space at its first level."""
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(steps)
    scaled = float(scheduler.init_noise_sigma) != 1.0
    return math.hypot(1.0, float(scheduler.sigmas[0])) if scaled else 1.0


def both(name: str, config: dict[str, Any], steps: int = 10, **options: Any) -> tuple[Tensor, Tensor]:
    """Return (ours, diffusers') of one walk on Stable Diffusion's schedule."""
    full, noise = {**SD, **config}, Noise([3, 4])
    sampler = DiffusersSampler(scheduler=name, config=full, steps=steps, options=options or None)
    kind = KINDS[config.get("prediction_type", "epsilon")]
    ours = sampler.sample(model(SCHEDULE, kind), SCHEDULE, start(), noise)
    return ours, loop(name, full, steps, start() * in_sigma_space(name, full, steps), noise, **options)


def agree(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Demand equality to 1e-5 of the larger of 1 and the size."""
    size = max(1.0, float(theirs.abs().max()))
    assert float((ours - theirs).abs().max()) <= tolerance * size
