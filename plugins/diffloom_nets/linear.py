"""The linear layer of tokens."""

from torch import nn


class Linear(nn.Linear):
    """A linear layer whose weights lie in memory input by input.

    Parameters, state and outputs are those of `torch.nn.Linear`. A product of few tokens with many weights then
    reads them in the order in which it needs them.

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
        bias: Whether something is added.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.weight.data = self.weight.data.t().contiguous().t()
