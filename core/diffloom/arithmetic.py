"""Weighted sums of tensors, and coefficients that broadcast over items: what every step is made of.

Coefficients are float64 (schedules compute in nothing less); data may be of any float type. A sum is taken
in float32 at least and rounded once to the data's type, so bfloat16 data lose no more than their own last
digit.
"""

import torch
from torch import Tensor

Coefficient = float | Tensor
"""A Python float, or a float64 tensor: 0-d (one level for all) or (B,) (one per item)."""


def working_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which data like `x` are computed: float32 for shorter types, else their own."""
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype


def per_item(coefficient: Tensor, like: Tensor) -> Tensor:
    """Return a coefficient ready to be multiplied with `like` (B, …) in `like`'s working type.

    Args:
        coefficient: 0-d, (B,), or already of as many dimensions as `like`.
        like: The data, (B, …).

    Returns:
        0-d tensors as they are (they promote nothing, and need not move to a device); (B,) as (B, 1, …).
    """
    if coefficient.dim() == 0 and like.dim() > 0:
        return coefficient if coefficient.device.type == "cpu" else coefficient.to(like.device)
    shaped = coefficient.reshape(-1, *[1] * (like.dim() - 1)) if coefficient.dim() == 1 else coefficient
    return shaped.to(like.device, working_dtype(like))


def weighted(*terms: tuple[Coefficient, Tensor]) -> Tensor:
    """Return Σ w_i x_i in the type and shape of the data; terms whose weight is the float 0 are left out.

    Args:
        terms: Pairs (w, x): w a coefficient, x (B, …); all x of one shape and type.
    """
    first = terms[0][1]
    total: Tensor | None = None
    for weight, x in terms:
        if isinstance(weight, float | int) and weight == 0:
            continue
        part = x.to(working_dtype(x))
        if isinstance(weight, Tensor):
            part = part * per_item(weight, x)
            total = part if total is None else total + part
        else:
            total = part * weight if total is None else torch.add(total, part, alpha=weight)
    if total is None:
        return torch.zeros_like(first)
    return total.to(first.dtype)
