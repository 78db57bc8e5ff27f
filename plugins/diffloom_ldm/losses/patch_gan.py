"""PatchGAN: a judge of patches, and what it and the judged learn from it (Isola et al. 2017; Esser et al. 2021)."""

from collections.abc import Iterator
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom.errors import IncompatibleParts

GanLoss = Literal["hinge", "vanilla"]

_MOST = 8  # times the first width
_EPS, _LARGEST = 1e-4, 1e4


class PatchGAN(nn.Module):
    """4×4 convolutions, of which `layers` halve the map; each number of the output judges one patch.

    With three layers a patch has 70 pixels, and 256×256 images have 30×30 of them: 2,765,633 parameters for RGB.

    Args:
        channels: Of the images.
        width: Of the first layer; doubled by each further one up to eight times.
        layers: How many halvings.
    """

    def __init__(self, channels: int, *, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.layers = layers
        self.net = nn.Sequential(*self._layers(channels, width))
        for module in self.net:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
            bias = getattr(module, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return one number per patch, large for real ones, (B, 1, h, w), for images (B, C, H, W)."""
        return cast(Tensor, self.net(x))

    def patches(self, side: int) -> int:
        """Return how many patches there are along a side of so many pixels."""
        for _ in range(self.layers):
            side //= 2
        return side - 2

    def require(self, size: tuple[int, ...]) -> None:
        """Raise IncompatibleParts where images of that size have no patch."""
        if self.patches(min(size)) < 1:
            raise IncompatibleParts(
                "the images are too small for the discriminator",
                where="task.adversarial.layers",
                expected=f"fewer layers than {self.layers}",
                got=f"sides of {min(size)} pixels",
            )

    def _layers(self, channels: int, width: int) -> Iterator[nn.Module]:
        yield nn.Conv2d(channels, width, 4, stride=2, padding=1)
        yield nn.LeakyReLU(0.2)
        before = width
        for layer in range(1, self.layers + 1):
            wide = width * min(1 << layer, _MOST)
            yield nn.Conv2d(before, wide, 4, stride=2 if layer < self.layers else 1, padding=1, bias=False)
            yield nn.BatchNorm2d(wide)
            yield nn.LeakyReLU(0.2)
            before = wide
        yield nn.Conv2d(before, 1, 4, padding=1)


def discriminator_loss(kind: GanLoss, real: Tensor, fake: Tensor) -> Tensor:
    """Return what the judge minimises, 0-d, for its verdicts on real and made images, any shape.

    hinge is ½ (mean relu(1 − D(x)) + mean relu(1 + D(x̂))), vanilla ½ (mean softplus(−D(x)) + mean softplus(D(x̂))).
    """
    if kind == "hinge":
        return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())
    return 0.5 * (functional.softplus(-real).mean() + functional.softplus(fake).mean())


def generator_loss(kind: GanLoss, fake: Tensor) -> Tensor:
    """Return what the judged minimises, 0-d: −mean D(x̂), or for vanilla mean softplus(−D(x̂)), non-saturating."""
    return -fake.mean() if kind == "hinge" else functional.softplus(-fake).mean()


def adaptive_weight(loss: Tensor, adversarial: Tensor, layer: Tensor) -> Tensor:
    """Return ‖∇loss‖ / (‖∇adversarial‖ + 1e-4) at a layer, at most 1e4, without gradient (Esser et al. 2021, eq. 7)."""
    ours, theirs = (torch.autograd.grad(value, layer, retain_graph=True)[0] for value in (loss, adversarial))
    weight: Tensor = ours.norm() / (theirs.norm() + _EPS)
    return weight.clamp(0.0, _LARGEST).detach()
