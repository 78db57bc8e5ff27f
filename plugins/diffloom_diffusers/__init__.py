"""diffusers' models and schedulers as parts of diffloom, and diffloom's systems as folders that diffusers loads.

The components need diffusers (`pip install 'diffloom[diffusers]'`) and read local folders only; nothing is fetched.
"""

__all__ = ["export"]

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffloom_diffusers.exporting import export


def __getattr__(name: str) -> Any:
    if name != "export":
        raise AttributeError(f"module 'diffloom_diffusers' has no attribute {name!r}")
    from diffloom_diffusers.exporting import export

    return export
