"""Prediction: what the output of a denoiser means, and the one place where it is converted.

With x_t = α x_0 + σ ε, a network may give ε, x_0, v = α ε − σ x_0 or the flow ε − x_0. Everything downstream speaks
`Denoised(x0, eps)` only.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Prediction = Literal["eps", "x0", "v", "flow"]


@dataclass(frozen=True)
class Denoised:
    """What a model says about a noisy x_t: the posterior mean of the clean data, and the noise that goes with it.

    Attributes:
        x0: Expected clean data, the shape of x_t. Invariant: x_t = α x0 + σ eps, until x0 is clipped.
        eps: Expected noise, the shape of x_t.
        spread: For networks with learned variance, where the log-variance lies between the posterior's (−1) and
            the transition's (+1); the shape of x_t (Nichol & Dhariwal 2021, eq. 15). `None` otherwise.
    """

    x0: Tensor
    eps: Tensor
    spread: Tensor | None = None
