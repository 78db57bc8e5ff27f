"""About: what a run does not say of itself elsewhere: the machine, the parts as built, the data as read."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffloom_report import files

if TYPE_CHECKING:
    from diffloom.engine.run import Run

_PACKAGES = ("diffloom", "torch", "accelerate", "numpy", "safetensors")


def write_about(run: "Run") -> None:
    """Write about.json into a run's folder."""
    facts = {"environment": environment(run), "parts": parts(run), "data": data(run)}
    files.replace(run.directory / files.ABOUT, json.dumps(facts, indent=1) + "\n")


def environment(run: "Run") -> dict[str, str]:
    """Return the machine and the versions, as texts by name; nothing in it names a person or a host."""
    import torch

    device = run.system.device
    found = {
        "Device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper(),
        "Processor": _processor(),
        "Cores": f"{os.cpu_count()}, of which PyTorch uses {torch.get_num_threads()}",
        "Processes": os.environ.get("WORLD_SIZE", "1"),
        "System": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    return found | {name: known for name in _PACKAGES if (known := _version(name))}


def parts(run: "Run") -> dict[str, dict[str, Any]]:
    """Return class, number of parameters and how many of them learn, for each part that has weights."""
    found = {}
    for role, part in run.system.roles().items():
        sizes = [(p.numel(), p.requires_grad) for p in part.parameters()]
        found[role] = {
            "class": type(part).__name__,
            "parameters": sum(size for size, _ in sizes),
            "learning": sum(size for size, learns in sizes if learns),
        }
    return found


def data(run: "Run") -> dict[str, Any]:
    """Return how many samples there are, of which shape and classes."""
    dataset = run.dataset
    return {
        "samples": len(dataset),
        "shape": list(dataset.space.shape),
        "keys": list(dataset.holds),
        "classes": list(dataset.classes),
    }


def _processor() -> str:
    """Return the processor's name as the system gives it."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8", errors="replace").splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
