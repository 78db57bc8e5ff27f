"""Layouts of parts that are diffusers' own: the same tensors under the same names, below one attribute."""

from typing import Any

from torch import nn

from diffloom.layout import Layout, Weld


def identical(part: nn.Module, prefix: str, model: Any) -> Layout:
    """Return the layout of a part that holds a diffusers model under an attribute.

    Args:
        part: Ours.
        prefix: The attribute and a dot.
        model: diffusers' model there.
    """
    welds = tuple(Weld(key, (key.removeprefix(prefix),)) for key in part.state_dict())
    config = {key: value for key, value in dict(model.config).items() if not key.startswith("_")}
    return Layout("diffusers", welds, config={"_class_name": type(model).__name__, **config})
