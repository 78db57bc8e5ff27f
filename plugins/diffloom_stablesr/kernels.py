"""Kernels of blur, as Real-ESRGAN draws them (Wang et al. 2021, arXiv 2107.10833, section 3).

With Σ = R(θ) diag(σ₁², σ₂²) R(θ)ᵀ and q = xᵀ Σ⁻¹ x at the pixels x of a square grid:

    gaussian     exp(−q/2)
    generalised  exp(−q^β / 2)
    plateau      1 / (1 + q^β)
    sinc         ω J₁(ω r) / (2π r), ω²/(4π) at r = 0: the ideal low-pass of cut-off ω, which rings

Each is divided by its sum, so a flat image stays as it is.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SHAPES = ("iso", "aniso", "generalised-iso", "generalised-aniso", "plateau-iso", "plateau-aniso")


def elliptic(size: int, sigma: tuple[float, float], angle: float) -> Tensor:
    """Return q = xᵀ Σ⁻¹ x on a grid, float64 (size, size).

    Args:
        size: Side of the grid, odd.
        sigma: Standard deviations along both axes, in pixels.
        angle: θ by which the axes are turned, in radians.
    """
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    return ((cos * x + sin * y) / sigma[0]).square() + ((cos * y - sin * x) / sigma[1]).square()


def gaussian(q: Tensor, beta: float = 1.0) -> Tensor:
    """Return the (generalised) Gaussian kernel of a quadratic form."""
    return _normalised(torch.exp(-q.pow(beta) / 2))


def plateau(q: Tensor, beta: float) -> Tensor:
    """Return the plateau-shaped kernel of a quadratic form."""
    return _normalised(1 / (1 + q.pow(beta)))


def sinc(size: int, cutoff: float) -> Tensor:
    """Return the circular low-pass kernel, float64 (size, size).

    Args:
        size: Side, odd.
        cutoff: ω in radians per pixel, at most π.
    """
    r = elliptic(size, (1.0, 1.0), 0.0).sqrt()
    ring = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r)
    return _normalised(torch.where(r == 0, cutoff**2 / (4 * math.pi), ring))


def draw(
    generator: torch.Generator,
    *,
    sizes: tuple[int, int],
    sigma: tuple[float, float],
    shapes: Sequence[float],
    sinc_probability: float,
    betas: tuple[tuple[float, float], tuple[float, float]] = ((0.5, 2.0), (1.0, 1.5)),
) -> Tensor:
    """Return a random kernel, float64 (k, k).

    Args:
        generator: Of all randomness.
        sizes: Least and largest side, both odd.
        sigma: Range of the standard deviations, in pixels.
        shapes: Probability of each of `SHAPES`, in order.
        sinc_probability: Of a sinc instead.
        betas: Ranges of β of generalised and of plateau kernels; half of all β are below 1 where the range is.
    """
    size = 2 * integer(generator, sizes[0] // 2, sizes[1] // 2) + 1
    if chance(generator, sinc_probability):
        return sinc(size, uniform(generator, (math.pi / (3 if size < 13 else 5), math.pi)))
    shape = SHAPES[int(torch.multinomial(torch.tensor(shapes), 1, generator=generator))]
    first = uniform(generator, sigma)
    pair, angle = (first, first), 0.0
    if shape.endswith("aniso"):
        pair, angle = (first, uniform(generator, sigma)), uniform(generator, (-math.pi, math.pi))
    q = elliptic(size, pair, angle)
    if shape.startswith("generalised"):
        return gaussian(q, _beta(generator, betas[0]))
    if shape.startswith("plateau"):
        return plateau(q, _beta(generator, betas[1]))
    return gaussian(q)


def uniform(generator: torch.Generator, limits: tuple[float, float]) -> float:
    """Return a number drawn evenly within limits."""
    return limits[0] + (limits[1] - limits[0]) * float(torch.rand((), generator=generator, dtype=torch.float64))


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """Return a whole number drawn evenly, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def chance(generator: torch.Generator, probability: float) -> bool:
    """Return true with a probability; the generator moves on either way."""
    return float(torch.rand((), generator=generator)) < probability


def _beta(generator: torch.Generator, limits: tuple[float, float]) -> float:
    low, high = limits
    if low >= 1 or high <= 1:
        return uniform(generator, limits)
    return uniform(generator, (low, 1.0) if chance(generator, 0.5) else (1.0, high))


def _normalised(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum()
