"""The linear layer of tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom_nets.prepared import arithmetic, on_cpu


class Linear(nn.Linear):
    """A linear layer whose weights lie in memory input by input.

    Parameters, state and outputs are those of `torch.nn.Linear`. A product of few tokens with many weights then
    reads them in the order in which it needs them. Where a CPU would only emulate bfloat16, inference multiplies in
    float32.

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
        bias: Whether something is added.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.weight.data = self.weight.data.t().contiguous().t()

    def forward(self, x: Tensor) -> Tensor:
        """Return the product (…, outputs) for x (…, inputs)."""
        if torch.is_grad_enabled() or not on_cpu(x, self.weight):
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        compute = arithmetic(dtype)
        if compute == dtype:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.to(compute)
        with torch.autocast("cpu", enabled=False):
            return functional.linear(x.to(compute), self.weight.to(compute), bias).to(dtype)
