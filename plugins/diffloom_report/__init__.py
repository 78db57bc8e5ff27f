"""What is seen of a run: progress, figures, pictures, TensorBoard and one page that holds all of it.

Everything here is imported on first use, so that hook plugins cost nothing until they act.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffloom_report.pictures import grid, trajectory
    from diffloom_report.report import write_report

_HOMES = {"grid": "pictures", "trajectory": "pictures", "write_report": "report"}

__all__ = ["grid", "trajectory", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'diffloom_report' has no attribute {name!r}")
    return getattr(import_module(f"diffloom_report.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
