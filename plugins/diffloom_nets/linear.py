"""The linear layer of tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom_nets.prepared import arithmetic, on_cpu
from diffloom_nets.product import multiply


class Linear(nn.Linear):
    """A linear layer to whose output something can be added; see `linear`.

    Parameters, state and outputs (up to rounding) are those of `torch.nn.Linear`.

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
        bias: Whether there is one.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Return the product for x (…, inputs), plus `plus` where it is given; both (…, outputs)."""
        return linear(x, self.weight, self.bias, plus)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, plus: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b + plus.

    Inference on a CPU multiplies with oneDNN, which adds in passing; where the CPU would only emulate bfloat16, it
    multiplies in float32.

    Args:
        x: (…, inputs).
        weight: (outputs, inputs).
        bias: (outputs,), or `None`.
        plus: (…, outputs), or `None`.

    Returns:
        (…, outputs).
    """
    if torch.is_grad_enabled() or not on_cpu(x, weight):
        return _added(functional.linear(x, weight, bias), plus)
    if fuses(x, weight) and (plus is None or plus.dtype == x.dtype):
        return multiply(x, weight, bias, plus=plus)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    compute = arithmetic(dtype)
    if compute == dtype:
        return _added(functional.linear(x, weight, bias), plus)
    bias = None if bias is None else bias.to(compute)
    with torch.autocast("cpu", enabled=False):
        return _added(functional.linear(x.to(compute), weight.to(compute), bias).to(dtype), plus)


def fuses(x: Tensor, weight: Tensor) -> bool:
    """Whether inference multiplies x (…, inputs) with the weights as they are by `product.multiply`."""
    return (
        not torch.is_grad_enabled()
        and on_cpu(x, weight)
        and not torch.is_autocast_enabled("cpu")
        and x.dtype == weight.dtype == arithmetic(x.dtype)
        and (weight.is_contiguous() or weight.T.is_contiguous())
    )


def _added(x: Tensor, plus: Tensor | None) -> Tensor:
    return x if plus is None else x + plus
