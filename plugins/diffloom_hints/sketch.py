"""Sketch: what a pencil would draw, by differences of Gaussians (XDoG, Winnemöller et al. 2012)."""

import torch
from torch import Tensor

from diffloom_hints.filters import blurred
from diffloom_hints.hint import Bands, Copies, DrawnHint, Positive, Share

_RATIO = 1.6  # of the two Gaussians: the one at which their difference is nearest to a Laplacian (Marr & Hildreth)


class Sketch(DrawnHint):
    """Strokes along dark lines and the dark side of edges: bright on black, as hints are, not dark on paper.

    D = G_σ ∗ x − τ · G_{1.6 σ} ∗ x ;  the stroke is 0 where D ≥ ε, and −tanh(φ (D − ε)) elsewhere.
    (Winnemöller, Kyprianidis & Olsen 2012, eqs. 3 and 4, inverted.)

    Args:
        sigma: σ, half the width of a stroke, in pixels.
        tau: τ, how much of the wider Gaussian is taken off: 1 draws every fold, less spares flat ground.
        epsilon: ε, the level below which a stroke begins; below 0 it spares the grain of dark ground.
        phi: φ, how sharply it begins.
        key: Under which the hint is put.
        of: The image that it is drawn from, in [−1, 1].
        bands: Indices of the bands that count, from 0; all of them by default.
        copies: Of the map: 3 for weights that expect hints in colour.
    """

    def __init__(
        self,
        *,
        sigma: Positive = 1.0,
        tau: Share = 0.99,
        epsilon: float = -0.008,
        phi: Positive = 80.0,
        key: str = "hint",
        of: str = "image",
        bands: Bands = (),
        copies: Copies = 1,
    ) -> None:
        super().__init__(key=key, of=of, bands=bands, copies=copies)
        self.sigma, self.tau, self.epsilon, self.phi = sigma, tau, epsilon, phi

    def trace(self, grey: Tensor, generator: torch.Generator) -> Tensor:
        """Return the strokes."""
        difference = blurred(grey, self.sigma) - self.tau * blurred(grey, _RATIO * self.sigma)
        return -torch.tanh(self.phi * (difference - self.epsilon)).clamp(max=0)
