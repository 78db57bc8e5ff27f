"""How different two colours look: CIE 1976 and CIEDE2000, between sRGB images.

Law: both are 0 for equal colours and symmetric; CIE 1976 is the Euclidean distance in Lab. All in float64.
"""

import torch
from torch import Tensor

_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)  # D65, 2° observer
_CUBE, _SLOPE = (6 / 29) ** 3, (29 / 6) ** 2 / 3
_SEVENTH = 25.0**7


def lab(image: Tensor) -> Tensor:
    """Return CIE Lab (B, 3, H, W), L in 0 … 100, of sRGB images (B, 3, H, W) in [−1, 1] (IEC 61966-2-1; CIE 15)."""
    values = image.double().add(1).div(2).clamp(0, 1)
    linear = torch.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    xyz = torch.einsum("ij,bj...->bi...", linear.new_tensor(_TO_XYZ), linear)
    relative = xyz / xyz.new_tensor(_WHITE).view(3, 1, 1)
    f = torch.where(relative > _CUBE, relative.clamp_min(_CUBE) ** (1 / 3), _SLOPE * relative + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def cie76(one: Tensor, other: Tensor) -> Tensor:
    """Return the distance of Lab colours (B, 3, …), (B, …)."""
    return (one.double() - other.double()).square().sum(1).sqrt()


def ciede2000(one: Tensor, other: Tensor) -> Tensor:
    """Return CIEDE2000 of Lab colours (B, 3, …), (B, …), with k_L = k_C = k_H = 1 (Sharma et al. 2005)."""
    (l1, a1, b1), (l2, a2, b2) = one.double().unbind(1), other.double().unbind(1)
    mean7 = ((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2) ** 7
    g = 0.5 * (1 - (mean7 / (mean7 + _SEVENTH)).sqrt())
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = torch.atan2(b1, a1), torch.atan2(b2, a2)
    grey = (c1 == 0) | (c2 == 0)
    turn = h2 - h1
    turn = torch.where(turn > torch.pi, turn - 2 * torch.pi, torch.where(turn < -torch.pi, turn + 2 * torch.pi, turn))
    turn = turn.masked_fill(grey, 0.0)
    # eq. 14: halfway along the shorter arc; the sum where one of the two is grey
    hue = torch.where(grey, h1 + h2, h1 + turn / 2)
    d_l, d_c, d_h = l2 - l1, c2 - c1, 2 * (c1 * c2).sqrt() * torch.sin(turn / 2)
    lightness, chroma = ((l1 + l2) / 2 - 50) ** 2, (c1 + c2) / 2
    t = _hue_weight(hue)
    s_l = 1 + 0.015 * lightness / (20 + lightness).sqrt()
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    x, y, z = d_l / s_l, d_c / s_c, d_h / s_h
    return (x**2 + y**2 + z**2 + _rotation(hue, chroma) * y * z).clamp_min(0).sqrt()


def _hue_weight(hue: Tensor) -> Tensor:
    """Return T (eq. 15)."""
    weight = torch.ones_like(hue)
    for n, shift, amount in ((1, -30, -0.17), (2, 0, 0.24), (3, 6, 0.32), (4, -63, -0.20)):
        weight = weight + amount * torch.cos(n * hue + torch.pi * shift / 180)
    return weight


def _rotation(hue: Tensor, chroma: Tensor) -> Tensor:
    """Return R_T (eqs. 16, 17 and 21)."""
    degrees = torch.rad2deg(hue) % 360
    angle = 60 * torch.exp(-(((degrees - 275) / 25) ** 2))
    c7 = chroma**7
    return -torch.sin(torch.deg2rad(angle)) * 2 * (c7 / (c7 + _SEVENTH)).sqrt()
