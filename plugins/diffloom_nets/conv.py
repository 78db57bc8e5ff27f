"""The convolution of every block here, and how layers start."""

from typing import TypeVar

from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, "Conv2d")


class Conv2d(nn.Conv2d):
    """A convolution whose bias may be shifted by the caller.

    Its parameters and state are those of `torch.nn.Conv2d`.
    """

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return the convolved map plus `shift`.

        Args:
            x: (B, in_channels, H, W).
            shift: (B, out_channels), or (1, out_channels) for the whole batch, which costs nothing.
        """
        bias = self.bias
        if shift is not None and shift.shape[0] == 1:
            bias, shift = (shift[0] if bias is None else bias + shift[0]), None
        h: Tensor = self._conv_forward(x, self.weight, bias)
        return h if shift is None else h + shift[:, :, None, None]


def xavier(layer: Layer) -> Layer:
    """Return the layer with Xavier-uniform weights and zero bias (Ho et al. 2020)."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zero(layer: Layer) -> Layer:
    """Return the layer with everything zero, so that what it ends starts by adding nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
