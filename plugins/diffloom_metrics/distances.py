"""Distances between sets of features, and the inception score: mathematics alone, in float64 throughout."""

import torch
from torch import Tensor


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (d,) and the covariance (d, d), with N − 1, of `features` (N, d), N ≥ 2."""
    rows = features.double()
    return rows.mean(dim=0), torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])


def frechet_distance(mean_1: Tensor, covariance_1: Tensor, mean_2: Tensor, covariance_2: Tensor) -> float:
    """Return the squared Fréchet distance of two Gaussians (Dowson & Landau 1982; Heusel et al. 2017, FID).

    ‖m₁ − m₂‖² + Tr(S₁ + S₂) − 2 Tr(S₁S₂)^½, with Tr(S₁S₂)^½ = Σ √eig(S₁^½ S₂ S₁^½): a symmetric matrix, whose
    eigenvalues are real and, but for rounding, not negative.

    Args:
        mean_1: (d,).
        covariance_1: (d, d), symmetric, positive semidefinite; it may be singular.
        mean_2: (d,).
        covariance_2: (d, d).
    """
    m_1, s_1, m_2, s_2 = (x.double() for x in (mean_1, covariance_1, mean_2, covariance_2))
    values, vectors = torch.linalg.eigh(s_1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ s_2 @ root).clamp(min=0).sqrt().sum()
    return float((m_1 - m_2).square().sum() + s_1.trace() + s_2.trace() - 2 * cross)


def polynomial_mmd(x: Tensor, y: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy between two samples (Bińkowski et al. 2018, KID).

    With the kernel k(a, b) = (a·b/d + 1)³. It is 0 in the mean for samples of one distribution, so it can be
    negative (Gretton et al. 2012, Lemma 6).

    Args:
        x: (M, d), M ≥ 2.
        y: (N, d), N ≥ 2.
    """
    x, y = x.double(), y.double()
    m, n = len(x), len(y)
    within_x, within_y = _kernel(x, x), _kernel(y, y)
    same_x = (within_x.sum() - within_x.trace()) / (m * (m - 1))
    same_y = (within_y.sum() - within_y.trace()) / (n * (n - 1))
    return float(same_x + same_y - 2 * _kernel(x, y).mean())


def inception_score(probabilities: Tensor) -> float:
    """Return exp(E_x KL(p(y|x) ‖ p(y))) (Salimans et al. 2016, section 4); 1 … K.

    Args:
        probabilities: p(y|x), (N, K), each row of sum 1.
    """
    p = probabilities.double()
    marginal = p.mean(dim=0, keepdim=True)
    divergence = torch.xlogy(p, p).sum(dim=1) - torch.xlogy(p, marginal).sum(dim=1)
    return float(divergence.mean().exp())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3
