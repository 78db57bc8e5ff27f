"""Tables: our schedules as configs of diffusers' schedulers, and theirs as a schedule of ours."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from diffloom.errors import IncompatibleParts
from diffloom.path import from_beta
from diffloom.schedule import Schedule
from diffloom.system import System
from diffloom_diffusers.folder import SCHEDULER, described
from diffloom_diffusers.library import library
from diffloom_diffusers.scheduler import KINDS, own

_NAMES = {ours: theirs for theirs, ours in KINDS.items()}
_SPACINGS = ("leading", "trailing", "linspace")
_SAME = 1e-6


@dataclass(kw_only=True, eq=False)
class DiffusersSchedule(Schedule):
    """The noise levels of a scheduler of diffusers, from the folder that its network came in.

    Attributes:
        folder: Of a scheduler or pipeline in diffusers' layout.
    """

    folder: Annotated[Path, Field(description="folder of a scheduler, or of a pipeline")]

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, str], ...]:
        """Write a scheduler with a table of ᾱ and one of a rectified flow, and return their folders."""
        made = {
            "table": library().DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=100),
            "flow": library().FlowMatchEulerDiscreteScheduler(shift=3.0, num_train_timesteps=100),
        }
        for name, scheduler in made.items():
            scheduler.save_pretrained(str(folder / name))
        return tuple({"folder": str(folder / name)} for name in made)

    def __post_init__(self) -> None:
        """Read the scheduler's config.

        Raises:
            CheckpointError: The folder holds no scheduler.
            IncompatibleParts: Its levels are not those of a Gaussian path.
        """
        place, config = described(self.folder, ("scheduler",), SCHEDULER)
        scheduler = own(str(config.get("_class_name")), json.dumps(config))
        if hasattr(scheduler, "alphas_cumprod"):
            self._table = _of_betas(scheduler, config)
        elif hasattr(scheduler, "scale_noise"):
            sigma = scheduler.sigmas.double().flip(0)
            self._table = (1 - sigma, sigma)
        else:
            raise IncompatibleParts(
                f"{type(scheduler).__name__} has no table of noise levels",
                where=str(place),
                expected="a scheduler with ᾱ, or one of a rectified flow",
                remedy="name one of our schedules",
            )
        self.steps = self._table[0].shape[0]

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        return self._table


def _of_betas(scheduler: Any, config: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return (α, σ) of a scheduler's betas, with the digits that their product in float32 loses."""
    betas = scheduler.betas.double()
    if config.get("rescale_betas_zero_snr"):
        betas[-1] = 1.0  # stands as 1 − 2⁻²⁴ in some schedulers
    alpha, sigma = from_beta(betas)
    if torch.allclose(alpha.square(), scheduler.alphas_cumprod.double(), rtol=1e-3, atol=_SAME):
        return alpha, sigma
    kept = scheduler.alphas_cumprod.double()  # changed after the product, as some schedulers do
    return kept.sqrt(), (1 - kept).sqrt()


def scheduler_config(system: System) -> dict[str, Any]:
    """Return the config of a scheduler with the system's schedule.

    Raises:
        IncompatibleParts: diffusers has no scheduler with such a table, or for such a network.
    """
    schedule = system.schedule
    if schedule.path == "vp":
        return _ddpm(system)
    if schedule.path == "flow":
        return _flow(system)
    raise IncompatibleParts(
        f"diffusers cannot express a schedule of the family '{schedule.path}'",
        where="schedule",
        expected="α² + σ² = 1 (a table of β), or α + σ = 1 (a rectified flow)",
        got=f"a table whose networks see x_t = α x_0 + σ ε with α = {float(schedule.alpha(0)):g}; diffusers scales "
        "what they see to unit variance",
        remedy="train on the variance-preserving schedule with the same log-SNR",
    )


def _ddpm(system: System) -> dict[str, Any]:
    schedule, kind = system.schedule, system.plan.prediction
    if kind == "flow":
        raise IncompatibleParts(
            "diffusers' schedulers with a table of β know no flow prediction",
            where="denoiser.prediction",
            expected="eps, x0 or v",
            got=kind,
        )
    beta = schedule.beta(torch.arange(schedule.steps, device="cpu"))
    learned = system.denoiser.out_channels == 2 * system.space.channels
    sampler = system._sampler
    spacing = getattr(sampler, "spacing", None)
    clip = getattr(sampler, "clip", None)
    values = {
        "num_train_timesteps": schedule.steps,
        "trained_betas": beta.tolist(),
        "prediction_type": _NAMES[kind],
        "variance_type": "learned_range" if learned else "fixed_small",
        "clip_sample": clip is not None,
        "clip_sample_range": 1.0 if clip is None else float(clip),
        "timestep_spacing": spacing if spacing in _SPACINGS else "trailing",
        "steps_offset": int(getattr(sampler, "offset", None) or 0) if spacing == "leading" else 0,
        "rescale_betas_zero_snr": schedule.zero_terminal_snr,
    }
    return _config(library().DDPMScheduler(**values))


def _flow(system: System) -> dict[str, Any]:
    """Return the config of a rectified flow: σ = k u/(1 + (k − 1) u), u = (i + 1)/T, is all that it can say."""
    schedule, kind = system.schedule, system.plan.prediction
    sigma = schedule.sigma(torch.arange(schedule.steps, device="cpu"))
    u = torch.arange(1, schedule.steps + 1, dtype=torch.float64, device="cpu") / schedule.steps
    middle = max(schedule.steps // 2 - 1, 0)
    odds = (sigma / (1 - sigma))[middle] / (u / (1 - u))[middle] if schedule.steps > 1 else torch.ones(())
    if kind != "flow" or not torch.allclose(sigma, odds * u / (1 + (odds - 1) * u), atol=_SAME):
        raise IncompatibleParts(
            "diffusers cannot express this flow",
            where="denoiser.prediction" if kind != "flow" else "schedule",
            expected="prediction: flow, on levels evenly spaced but for a shift",
            got=f"prediction: {kind}" if kind != "flow" else f"σ from {float(sigma[0]):g} to {float(sigma[-1]):g}",
        )
    made = library().FlowMatchEulerDiscreteScheduler(num_train_timesteps=schedule.steps, shift=float(odds))
    return _config(made)


def _config(scheduler: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(scheduler.to_json_string())
    return found
