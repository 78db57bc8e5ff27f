"""What components of each kind declare, shown for their default values and images of 3 × 64 × 64."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diffloom.cli.console import amount
from diffloom.kinds import registry

if TYPE_CHECKING:
    from diffloom.condition import Ports

_SIZE = (64, 64)


def _built(kind: str, name: str) -> Any:
    """Return a component with default values, without memory for weights."""
    import torch

    from diffloom.space import Space

    config = registry.validate(kind, {"type": name})
    space = Space(channels=3, size=_SIZE)
    if kind in ("schedule", "sampler"):
        return registry.instantiate(config, {Space: space})
    with torch.device("meta"):
        return registry.instantiate(config, {Space: space})


def _schedule(name: str) -> dict[str, str]:
    schedule = _built("schedule", name)
    ends = [float(schedule.log_snr(t)) for t in (0, schedule.steps - 1)]
    return {
        "path": schedule.path,
        "steps": str(schedule.steps),
        "log-SNR": f"{ends[0]:.4g} … {ends[1]:.4g}",
        "zero terminal SNR": "yes" if schedule.zero_terminal_snr else "no",
    }


def _sampler(name: str) -> dict[str, str]:
    sampler = _built("sampler", name)
    return {"order": str(sampler.order), "draws noise": "yes" if sampler.stochastic else "no"}


def _denoiser(name: str) -> dict[str, str]:
    denoiser = _built("denoiser", name)
    taps = [tap.name for tap in denoiser.taps]
    return {
        "weights": f"{amount(sum(p.numel() for p in denoiser.parameters()))} for images of 3×64×64",
        "ports": ports(denoiser.ports),
        "taps": ", ".join(taps) or "none",
    }


def _conditioner(name: str) -> dict[str, str]:
    cls = registry.get("conditioner", name)
    return {"reads": ", ".join(getattr(cls, "needs", ())) or "nothing"}


def _task(name: str) -> dict[str, str]:
    cls = registry.get("task", name)
    answers = "the batch's own image" if getattr(cls, "paired", False) else "with new images"
    return {"reads": ", ".join(getattr(cls, "needs", ())), "answers": answers}


def ports(found: "Ports") -> str:
    """Write ports with their widths."""
    said = [f"{port} {getattr(found, port)}" for port in ("context", "vector", "concat") if getattr(found, port)]
    said += [f"affine at {len(found.affine)} taps"] if found.affine else []
    return ", ".join(said) or "none"


DECLARED: dict[str, Callable[[str], dict[str, str]]] = {
    "schedule": _schedule,
    "sampler": _sampler,
    "denoiser": _denoiser,
    "conditioner": _conditioner,
    "task": _task,
}
"""Kind → what its components declare, by name."""
