"""Held: weights between 0 and 1 that are exact at both ends and can still be moved away from them.

A sigmoid never gets to 0 or 1, and hardly moves again once it is near. Here a weight is clamped, and a gradient that
leads back inside passes, while one that leads further out does not (projected gradient descent, Goldstein 1964).
"""

from typing import Any

import torch
from torch import Tensor


class _Held(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return weights.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (weights,), (gradient,) = ctx.saved_tensors, gradients
        outward = ((weights <= 0) & (gradient > 0)) | ((weights >= 1) & (gradient < 0))
        return gradient.masked_fill(outward, 0.0)


def held(weights: Tensor) -> Tensor:
    """Return weights of any shape, held to [0, 1]."""
    clamped: Tensor = _Held.apply(weights)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return clamped
