"""Scheduler: a diffusers scheduler made ready for a schedule of ours, and how its numbers read on our path.

diffusers' samplers live in one of four spaces. With ς = σ/α at a level, its sample is
x/√(α² + σ²) (`vp`), x/α (`ve`, and `edm`, which differs in what the network is shown) or x/(α + σ) (`flow`).
"""

import inspect
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from diffloom.errors import IncompatibleParts
from diffloom.prediction import Prediction
from diffloom.schedule import Schedule
from diffloom_diffusers.library import library, named

SampleSpace = Literal["vp", "ve", "flow", "edm"]

KINDS: dict[str, Prediction] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "flow"}
_STEP = {"model_output", "timestep", "sample"}
_RUNGE_KUTTA = 4  # calls that make one step of PNDM's warm-up
_CLOSE = 1e-3  # of two tables of ᾱ, relative: theirs is a product of float32 numbers
_EDGE = 1e-3  # how far a level may lie outside a schedule, in log-SNR: rounding


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scheduler after `set_timesteps`, never stepped, and what its calls mean.

    Attributes:
        template: The scheduler.
        space: Where its samples live.
        starts: The call with which each step begins, and the number of calls: n + 1 entries, rising.
        asked: The time at which each call asks the network.
        times: The time of the level that each step begins at, n entries; of the end, one more.
        ratios: ς = σ/α there, n + 1 entries; 0 at a clean end.
    """

    template: Any
    space: SampleSpace
    starts: tuple[int, ...]
    asked: tuple[float, ...]
    times: tuple[float, ...]
    ratios: tuple[float, ...]

    @property
    def kind(self) -> Prediction:
        """What the scheduler takes the network's output for."""
        if self.space == "flow":
            return "flow"
        return KINDS[self.template.config.get("prediction_type", "epsilon")]

    @property
    def learned(self) -> bool:
        """Whether it takes a learned variance with the output."""
        return str(self.template.config.get("variance_type", "")).startswith("learned")

    def size(self, ratio: float) -> float:
        """Return what a sample of theirs is multiples of x/√(α² + σ²), at a level."""
        if self.space == "vp" or math.isinf(ratio):
            return 1.0
        return math.hypot(1.0, ratio) / (1.0 + ratio if self.space == "flow" else 1.0)


def scheduler_class(name: object, where: str) -> type[Any]:
    """Return one of diffusers' schedulers.

    Raises:
        IncompatibleParts: Where there is none of that name, or its step asks for what no sampler here can give.
    """
    base = library().SchedulerMixin
    cls = named(name, lambda found: issubclass(found, base), "a scheduler of diffusers", where)
    step = inspect.signature(cls.step).parameters if hasattr(cls, "step") else {}
    demanded = {key for key, value in step.items() if value.default is value.empty} - {"self"}
    if demanded != _STEP:
        raise IncompatibleParts(
            f"{cls.__name__} does not step from a network's output alone",
            where=where,
            expected=f"step({', '.join(sorted(_STEP))})",
            got=f"step({', '.join(sorted(demanded))})",
        )
    return cls


@lru_cache(maxsize=32)
def prepared(schedule: Schedule, name: str, config: str, steps: int, options: str) -> Prepared:
    """Return a scheduler ready for n steps on a schedule.

    Args:
        schedule: The path; the scheduler is given its table.
        name: The scheduler's class.
        config: Its config, as JSON.
        steps: n.
        options: What `set_timesteps` is given besides, as JSON.

    Raises:
        IncompatibleParts: Where the scheduler cannot walk this schedule.
    """
    values: dict[str, Any] = json.loads(config)
    template = _built(scheduler_class(name, "sampler"), values, schedule)
    _set(template, steps, json.loads(options))
    space = _space(template)
    taus = [float(t) for t in template.timesteps]
    starts = _starts(template, taus)
    if len(starts) - 1 != steps:
        raise IncompatibleParts(
            f"{name} makes other steps than it is asked for",
            where="sampler.steps",
            expected=f"{steps} steps",
            got=f"{len(starts) - 1}, at the times {', '.join(f'{t:g}' for t in taus[:3])} … {taus[-1]:g}",
            remedy="ask for another number of steps, or set another timestep_spacing in `config`",
        )
    sigmas = [float(s) for s in template.sigmas] if hasattr(template, "sigmas") else None
    ratios = [_ratio(space, s) for s in sigmas] if sigmas else [_at(schedule, t) for t in taus]
    asked = _asked(template, space, schedule, taus, ratios)
    begun = [ratios[k] for k in starts[:-1]]
    times = [_time(schedule, ratio, name) for ratio in begun] if sigmas else [taus[k] for k in starts[:-1]]
    end = ratios[-1] if sigmas and 0 < ratios[-1] < begun[-1] else 0.0
    times.append(_time(schedule, end, name) if end else -1.0)
    _descend(times, asked, schedule, name)
    return Prepared(template, space, starts, tuple(asked), tuple(times), (*begun, end))


def own(name: str, config: str) -> Any:
    """Return a scheduler with its config's own table."""
    cls = scheduler_class(name, "sampler")
    try:
        with torch.device("cpu"):
            return cls.from_config(json.loads(config))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise IncompatibleParts(f"{name} refuses its config: {error}", where="sampler") from error


@lru_cache(maxsize=32)
def facts(name: str, config: str) -> tuple[bool, float | None]:
    """Return whether a scheduler takes a learned variance, and to what it clips the clean estimate, if it does.

    Raises:
        IncompatibleParts: Where it refuses its config.
    """
    found = own(name, config).config
    limit = float(found.get("clip_sample_range", 1.0)) if found.get("clip_sample") else None
    return str(found.get("variance_type", "")).startswith("learned"), limit


@lru_cache(maxsize=32)
def draws(name: str, config: str, steps: int, options: str, extra: str) -> bool:
    """Return whether a scheduler's steps depend on the random generator that they are given."""
    if "generator" not in inspect.signature(scheduler_class(name, "sampler").step).parameters:
        return False
    ends = []
    for seed in (1, 2):
        scheduler = own(name, config)
        _set(scheduler, min(steps, 10, len(scheduler)), json.loads(options))
        generator, x = torch.Generator("cpu").manual_seed(seed), torch.ones(1, 1, 2, 2, device="cpu")
        wide = 2 if str(scheduler.config.get("variance_type", "")).startswith("learned") else 1
        for t in scheduler.timesteps:
            shown = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            output = torch.cat([0.1 * shown] * wide, 1)
            x = scheduler.step(output, t, x, generator=generator, return_dict=False, **json.loads(extra))[0]
        ends.append(x)
    return not torch.equal(*ends)


def _built(cls: type[Any], values: dict[str, Any], schedule: Schedule) -> Any:
    """Return the scheduler with the schedule's table: its own, where that is the same."""
    taken = inspect.signature(cls.__init__).parameters
    template = own(cls.__name__, json.dumps(values))
    if "trained_betas" not in taken:
        if hasattr(template, "alphas_cumprod") or not hasattr(template, "sigmas"):
            raise _foreign(cls.__name__, "it has no table that could be replaced by the schedule's")
        return template
    if not hasattr(template, "alphas_cumprod"):
        raise _foreign(cls.__name__, "its noise levels are not those of a Gaussian path in ᾱ")
    if values.get("use_flow_sigmas"):
        return template
    wanted = schedule.log_snr(torch.arange(schedule.steps, device="cpu")).sigmoid()
    if _agree(template, wanted):
        return template
    changed = {**values, "trained_betas": _betas(schedule), "num_train_timesteps": schedule.steps}
    if schedule.zero_terminal_snr:
        if "rescale_betas_zero_snr" not in taken:
            raise _foreign(cls.__name__, "it cannot start where nothing of the data is left")
        changed["rescale_betas_zero_snr"] = True
        if values.get("prediction_type", "epsilon") == "epsilon":
            changed["prediction_type"] = "v_prediction"  # noise alone says nothing there; we can tell either
    template = own(cls.__name__, json.dumps(changed))
    if not _agree(template, wanted):
        raise _foreign(cls.__name__, "it changes the table that it is given")
    return template


def _betas(schedule: Schedule) -> list[float]:
    """Return β_t = 1 − ᾱ_t/ᾱ_{t−1} of the variance-preserving path with the schedule's log-SNR."""
    log = functional.logsigmoid(schedule.log_snr(torch.arange(schedule.steps, device="cpu")))
    before = torch.cat([log.new_zeros(1), log[:-1]])
    return (-torch.expm1(log - before)).tolist()


def _agree(template: Any, wanted: Tensor) -> bool:
    table = template.alphas_cumprod.double().cpu()
    return table.shape == wanted.shape and torch.allclose(table, wanted, rtol=_CLOSE, atol=1e-6)


def _set(template: Any, steps: int, options: dict[str, Any]) -> None:
    asked = {"timesteps": options["timesteps"]} if options.get("timesteps") else {"num_inference_steps": steps}
    rest = {key: value for key, value in options.items() if key != "timesteps"}
    try:
        with torch.device("cpu"):
            template.set_timesteps(**asked, **rest, device="cpu")
    except (ValueError, TypeError, NotImplementedError, IndexError, AssertionError) as error:
        raise IncompatibleParts(
            f"{type(template).__name__} does not take {steps} steps: {error}", where="sampler.steps", got=str(steps)
        ) from error


def _space(template: Any) -> SampleSpace:
    """Return the space of a scheduler's samples, by what it can do."""
    if hasattr(template, "precondition_inputs"):
        return "edm"
    if hasattr(template, "scale_noise") or template.config.get("use_flow_sigmas"):
        return "flow"
    if float(getattr(template, "init_noise_sigma", 1.0)) != 1.0:
        return "ve"
    return "vp"


def _starts(template: Any, taus: list[float]) -> tuple[int, ...]:
    """Return the call with which each step begins, and the number of calls."""
    warm = getattr(template, "prk_timesteps", None)
    slow = 0 if warm is None else len(warm)
    marks, k = [], 0
    while k < len(taus):
        marks.append(k)
        k += _RUNGE_KUTTA if k < slow else template.order
    if hasattr(template, "plms_timesteps"):  # whose first step is made twice, the second time at the next level
        marks = [k for k, after in zip(marks, [*marks[1:], None], strict=True) if not after or taus[after] < taus[k]]
    return (*marks, len(taus))


def _asked(
    template: Any, space: SampleSpace, schedule: Schedule, taus: list[float], ratios: list[float]
) -> list[float]:
    """Return our times of the calls: theirs where a table counts them, else those of the same level."""
    if space in ("vp", "ve"):
        return taus
    if space == "flow":  # they count in σ times T, some of them in whole numbers
        ratios = [_ratio(space, tau / template.config["num_train_timesteps"]) for tau in taus]
    return [_time(schedule, ratio, type(template).__name__) for ratio in ratios[: len(taus)]]


def _ratio(space: SampleSpace, sigma: float) -> float:
    """Return σ/α at a level that the scheduler calls sigma."""
    if space != "flow":
        return sigma
    return sigma / (1 - sigma) if sigma < 1 else math.inf


def _at(schedule: Schedule, t: float) -> float:
    return math.exp(-0.5 * float(schedule.log_snr(min(max(t, -1.0), schedule.steps - 1.0))))


def _time(schedule: Schedule, ratio: float, name: str) -> float:
    """Return the time at which σ/α is `ratio`."""
    found = -2 * math.log(ratio) if ratio else math.inf
    noisy, clean = float(schedule.log_snr(schedule.steps - 1)), float(schedule.log_snr(0))
    if not noisy - _EDGE * max(1.0, abs(noisy)) <= found <= clean + _EDGE * max(1.0, abs(clean)) and not (
        math.isinf(found) and math.isinf(noisy)
    ):
        raise IncompatibleParts(
            f"{name} asks for a level outside of the schedule",
            where="sampler.config",
            expected=f"σ/α from {math.exp(-noisy / 2):.4g} down to {math.exp(-clean / 2):.4g}",
            got=f"{ratio:.4g}",
            remedy="set sigma_min, sigma_max or the shift in `config`, or choose another schedule",
        )
    return float(schedule.time(min(max(found, noisy), clean)))


def _descend(times: list[float], asked: list[float], schedule: Schedule, name: str) -> None:
    inside = min(asked) >= 0 and max(asked) <= schedule.steps - 1
    if inside and all(later < earlier for earlier, later in pairwise(times)):
        return
    raise IncompatibleParts(
        f"{name} does not walk down the schedule's levels",
        where="sampler",
        expected=f"descending times within {schedule.steps - 1} … 0",
        got=", ".join(f"{t:g}" for t in asked[:3]) + f" … {asked[-1]:g}",
        remedy="ask for another number of steps, or set another timestep_spacing or steps_offset in `config`",
    )


def _foreign(name: str, why: str) -> IncompatibleParts:
    return IncompatibleParts(f"{name} cannot walk this schedule: {why}", where="sampler", remedy="choose another one")
