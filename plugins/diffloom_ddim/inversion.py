"""Encoding data into noise with DDIM run upwards, and interpolation between codes (Song et al. 2021, 4.3).

With y = x/α and ς = σ/α deterministic DDIM is Euler's method for dy = ε dς (eq. 14), so the same step with
the levels in rising order encodes. ε is taken at one end of each step, so decoding gives back the data up
to an error that falls as 1/n.
"""

from typing import Literal

import torch
from torch import Tensor

from diffloom.arithmetic import weighted, working_dtype
from diffloom.sampler import Grid, Model

__all__ = ["encode", "slerp"]


def encode(model: Model, grid: Grid, x0: Tensor, *, ask: Literal["here", "ahead"] = "here") -> Tensor:
    """Return the noisy data at the first level of a grid that decode to x0 with DDIM, η = 0.

    Args:
        model: What says what is noise; `model(x, t)`, as samplers ask it.
        grid: The grid that decodes; its levels are climbed from its end.
        x0: Data at the end of the grid, (B, C, *spatial).
        ask: Where in each step p → q, q noisier, the network is asked. `here`: at p, as in the paper; a
            network knows no clean time, so the first step asks at the grid's lowest level, as if x0 were
            noisy data there. `ahead`: at q with x_p, which mirrors the decoding step and is what other
            libraries' shifted index means.
    """
    x = x0
    for q in reversed(range(len(grid))):
        low, high = grid.levels[q + 1], grid.levels[q]
        asked = q if ask == "ahead" else min(q + 1, len(grid) - 1)
        eps = model(x, grid.t[asked]).eps
        ratio = high.alpha / low.alpha
        x = weighted((ratio, x), (high.sigma - ratio * low.sigma, eps))
    return x


def slerp(x: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
    """Return the spherical interpolation between two codes, item by item over all their numbers.

    sin((1 − w)θ)/sin θ · x + sin(wθ)/sin θ · y with θ the angle between them (Song et al. 2021, eq. 67);
    linear where sin θ < 1e-4. Norms are kept if both are equal.

    Args:
        x: (B, …), returned at weight 0.
        y: The shape of x, returned at weight 1.
        weight: w, a number or (B,).
    """
    a, b = x.to(working_dtype(x)).flatten(1), y.to(working_dtype(y)).flatten(1)
    norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    cosine = ((a * b).sum(1) / norms).clamp(-1, 1)
    theta = torch.where(norms > 0, cosine, torch.ones_like(cosine)).acos()
    w = torch.as_tensor(weight, dtype=theta.dtype, device=theta.device).expand_as(theta)
    sine = theta.sin()
    near = sine < 1e-4
    safe = torch.where(near, torch.ones_like(sine), sine)
    of_x = torch.where(near, 1 - w, ((1 - w) * theta).sin() / safe)
    of_y = torch.where(near, w, (w * theta).sin() / safe)
    return (a * of_x[:, None] + b * of_y[:, None]).view_as(x).to(x.dtype)
