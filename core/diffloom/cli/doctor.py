"""`doctor`: the environment, and every plugin that cannot be used, with the reason and the remedy."""

import os
import platform
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import typer

from diffloom.cli import options
from diffloom.cli.console import aligned, out, out_json, size
from diffloom_registry import DiffloomError

_SLOW = 1.0


def doctor(as_json: options.Json = False, debug: options.Debug = False) -> None:
    """Look for what is broken.

    Shows the environment, imports every installed plugin, and tells of each that cannot be used with its package,
    the reason and the remedy. The exit code is 2 if there is any.

    Examples:
      diffloom doctor
      diffloom doctor --json
    """
    found = examine()
    if as_json:
        out_json(found)
    else:
        out(described(found))
    if not found["ok"]:
        raise typer.Exit(2)


def examine() -> dict[str, Any]:
    """Return the state of the environment and of every installed plugin, as plain data."""
    packages = _packages()
    broken, slow, counts = _plugins()
    missing = [name for name, found in packages.items() if found is None]
    return {
        "ok": not broken and not missing,
        "environment": _environment(),
        "packages": packages,
        "missing": missing,
        "components": counts,
        "broken": broken,
        "slow": slow,
    }


def described(found: Mapping[str, Any]) -> str:
    """Return what `examine` found as text."""
    versions = [f"{name} {number or 'missing'}" for name, number in found["packages"].items()]
    lines = ["environment", aligned([[key, str(value)] for key, value in found["environment"].items()], indent=2)]
    lines += ["packages", *(f"  {', '.join(versions[start : start + 5])}" for start in range(0, len(versions), 5))]
    lines += ["components", aligned([[source, str(count)] for source, count in found["components"].items()], indent=2)]
    if found["slow"]:
        rows = [[f"{entry['seconds']:.1f} s", entry["value"], entry["source"]] for entry in found["slow"]]
        lines += [f"slow to import (over {_SLOW:g} s)", aligned(rows, indent=2)]
    if found["missing"]:
        lines += ["missing packages", f"  pip install {' '.join(found['missing'])}"]
    if found["broken"]:
        lines += ["broken plugins"]
    for entry in found["broken"]:
        lines += [f"  {entry['kind']}/{entry['name']}  {entry['source']}  {entry['value']}", f"    {entry['reason']}"]
        lines += [f"    {entry['remedy']}"] if entry["remedy"] else []
    lines += ["", "all is well" if found["ok"] else "something is broken; everything else works"]
    return "\n".join(lines)


def _environment() -> dict[str, str]:
    from importlib.metadata import version

    import torch

    return {
        "diffloom": version("diffloom"),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "torch": torch.__version__,
        "device": _device(),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
    }


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return ", ".join(f"{device.name} ({size(device.total_memory)})" for device in found)
    return "cpu"


def _packages() -> dict[str, str | None]:
    """Return the packages that diffloom needs, with the version that is installed."""
    from importlib.metadata import PackageNotFoundError, requires, version

    found: dict[str, str | None] = {}
    for line in requires("diffloom") or ():
        name, _, marker = line.partition(";")
        match = re.match(r"[\w.-]+", name)
        if match is None or "extra" in marker:
            continue
        try:
            found[match[0]] = version(match[0])
        except PackageNotFoundError:
            found[match[0]] = None
    return found


def _plugins() -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
    """Return what is broken, what is slow, and how many components each package publishes."""
    from diffloom.engine import hooks as specs
    from diffloom.kinds import registry
    from diffloom_registry.hooks import Hooks

    hooks = Hooks("diffloom", specs)
    broken = [
        {
            "kind": found.entry.kind,
            "name": found.entry.name,
            "distribution": found.entry.distribution,
            "version": found.entry.version,
            "source": found.entry.source,
            "value": found.entry.value,
            "reason": _reason(found.error),
            "remedy": found.error.remedy,
        }
        for found in [*registry.broken(), *hooks.doctor()]
    ]
    times = {**registry.load_seconds, **hooks.load_seconds}
    slow = [
        {"value": entry.value, "source": entry.source, "seconds": round(seconds, 3)}
        for entry, seconds in sorted(times.items(), key=lambda item: -item[1])
        if seconds > _SLOW
    ]
    counts = Counter(entry.source for entry in [*registry.entries(), *hooks.available()])
    return broken, slow, dict(sorted(counts.items()))


def _reason(error: DiffloomError) -> str:
    """Return what is wrong, what was expected and what came, on one line."""
    parts = [f"expected {error.expected}" if error.expected else "", f"got {error.got}" if error.got else ""]
    return ": ".join([error.message, *([", ".join(part for part in parts if part)] if any(parts) else [])])
