"""What the literature of image fusion measures: statistics of the fused image F, and what it took from sources A, B.

Everything is of grey images (B, H, W), float64 in 0 … 255, and gives one number per image, (B,); NaN where a figure
is undefined. EN and MI count values rounded to whole numbers; logarithms are of base 2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_LEVELS = 256
_VIF_SIDE, _VIF_NOISE, _FLAT = 41, 2.0, 1e-10
_LUMA = (0.299, 0.587, 0.114)
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def grey(image: Tensor) -> Tensor:
    """Return images (B, C, H, W) in [−1, 1] as (B, H, W) in 0 … 255: luma of three channels, else their mean."""
    values = image.double().clamp(-1, 1).add(1).mul(127.5)
    if values.shape[1] == len(_LUMA):
        return torch.einsum("c,bchw->bhw", values.new_tensor(_LUMA), values)
    return values.mean(1)


def entropy(fused: Tensor) -> Tensor:
    """Return EN = −Σ p log₂ p over 256 values, in bits."""
    return torch.stack([_bits(_whole(image), _LEVELS) for image in fused])


def deviation(fused: Tensor) -> Tensor:
    """Return SD, the standard deviation over all pixels."""
    return fused.flatten(1).std(1, correction=0)


def spatial_frequency(fused: Tensor) -> Tensor:
    """Return SF = √(RF² + CF²), root mean square differences along rows and columns (Eskicioglu & Fisher 1995)."""
    down, across = (fused.diff(dim=dim).square().flatten(1).mean(1) for dim in (1, 2))
    return (down + across).sqrt()


def average_gradient(fused: Tensor) -> Tensor:
    """Return AG = Σ √((g_x² + g_y²)/2) / ((H − 1)(W − 1)), g by central differences, one-sided at the border."""
    down, across = torch.gradient(fused, dim=(1, 2))
    height, width = fused.shape[1:]
    return ((down.square() + across.square()) / 2).sqrt().flatten(1).sum(1) / ((height - 1) * (width - 1))


def mutual_information(fused: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """Return MI = Σ_k H(F) + H(S_k) − H(F, S_k), in bits (Qu et al. 2002)."""
    each = [[_shared(_whole(f), _whole(s)) for f, s in zip(fused, source, strict=True)] for source in sources]
    return torch.stack([torch.stack(row) for row in each]).sum(0)


def difference_correlation(fused: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """Return SCD = r(F − B, A) + r(F − A, B) (Aslantas & Bendes 2015); NaN unless there are two sources."""
    if len(sources) != 2:
        return fused.new_full((len(fused),), torch.nan)
    a, b = sources
    return _correlation(fused - b, a) + _correlation(fused - a, b)


def information_fidelity(fused: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """Return VIF = Σ_k VIFp(S_k, F) (Sheikh & Bovik 2006, in pixels, at four scales); NaN for sides below 41."""
    if min(fused.shape[1:]) < _VIF_SIDE:
        return fused.new_full((len(fused),), torch.nan)
    return torch.stack([_fidelity(source, fused) for source in sources]).sum(0)


def edge_transfer(fused: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """Return Q^{AB/F}: how much of the sources' edges, strength and direction, the fused has (Xydeas & Petrović 2000).

    Q_S = Q_g Q_a of every pixel, weighted by the source's edge strength g_S. Equal strengths count as G = 1.
    """
    strength, angle = _edges(fused)
    total, weight = torch.zeros_like(fused), torch.zeros_like(fused)
    for source in sources:
        g, a = _edges(source)
        largest = torch.maximum(g, strength)
        kept = torch.where(largest > 0, torch.minimum(g, strength) / largest, 0.0)
        turned = 1 - (a - angle).abs() / (torch.pi / 2)
        q_g = 0.9994 / (1 + torch.exp(-15 * (kept - 0.5)))
        q_a = 0.9879 / (1 + torch.exp(-22 * (turned - 0.8)))
        total, weight = total + q_g * q_a * g, weight + g
    return total.flatten(1).sum(1) / weight.flatten(1).sum(1)


def _fidelity(source: Tensor, fused: Tensor) -> Tensor:
    """Return VIFp: Σ log(1 + g² σ_S²/(σ_V² + 2)) / Σ log(1 + σ_S²/2), F being g S + V in every window."""
    told, total = fused.new_zeros(len(fused)), fused.new_zeros(len(fused))
    for scale in range(4):
        window = _bell(2 ** (4 - scale) + 1, fused)
        if scale:
            source, fused = (_filtered(image, window)[..., ::2, ::2] for image in (source, fused))
        mean_s, mean_f = _filtered(source, window), _filtered(fused, window)
        var_s = (_filtered(source * source, window) - mean_s.square()).clamp_min(0)
        var_f = (_filtered(fused * fused, window) - mean_f.square()).clamp_min(0)
        shared = _filtered(source * fused, window) - mean_s * mean_f
        flat = (var_s < _FLAT) | (var_f < _FLAT)
        gain = (shared / (var_s + _FLAT)).masked_fill(flat, 0.0).clamp_min(0)
        noise = torch.where(gain > 0, var_f - gain * shared, var_f).clamp_min(_FLAT)
        told += torch.log1p(gain.square() * var_s / (noise + _VIF_NOISE)).flatten(1).sum(1)
        total += torch.log1p(var_s / _VIF_NOISE).flatten(1).sum(1)
    return told / total


def _bell(side: int, like: Tensor) -> Tensor:
    """Return a normalised Gaussian of `side` points with σ = side/5."""
    places = torch.arange(side, dtype=like.dtype, device=like.device) - (side - 1) / 2
    bell = torch.exp(-places.square() / (2 * (side / 5) ** 2))
    return bell / bell.sum()


def _filtered(images: Tensor, kernel: Tensor) -> Tensor:
    """Return images (B, H, W) filtered along rows and columns, where the kernel fits into them."""
    return images.unfold(1, len(kernel), 1).matmul(kernel).unfold(2, len(kernel), 1).matmul(kernel)


def _edges(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return strength and direction (−π/2 … π/2) of edges, by Sobel's filters with zeros beyond the border."""
    across = image.new_tensor(_SOBEL)
    kernels = torch.stack([across, across.T.flip(0)])[:, None]
    s_x, s_y = functional.conv2d(image[:, None], kernels, padding=1).unbind(1)
    angle = torch.where(s_x == 0, torch.pi / 2, torch.atan(s_y / torch.where(s_x == 0, 1.0, s_x)))
    return torch.hypot(s_x, s_y), angle


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = (v.flatten(1) - v.flatten(1).mean(1, keepdim=True) for v in (x, y))
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()


def _whole(image: Tensor) -> Tensor:
    return image.round().clamp(0, _LEVELS - 1).long().flatten()


def _bits(values: Tensor, levels: int) -> Tensor:
    """Return the entropy of whole numbers below `levels`, in bits."""
    p = torch.bincount(values, minlength=levels).double() / len(values)
    return -torch.xlogy(p, p).sum() / torch.log(p.new_tensor(2.0))


def _shared(x: Tensor, y: Tensor) -> Tensor:
    return _bits(x, _LEVELS) + _bits(y, _LEVELS) - _bits(x * _LEVELS + y, _LEVELS**2)
