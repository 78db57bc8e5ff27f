"""Class labels of diffusers' networks, told through the vector port: the weight of every class, one-hot as a rule.

diffusers looks a class up in a table inside the network. A row picked from a table is a one-hot vector times that
table, so the same weights hear a vector; nothing in between is rounded.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Rows(nn.Module):
    """A table of embeddings that is given weights of its rows instead of the index of one.

    Args:
        table: Whose weights it takes over, under the same name.
    """

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.weight = table.weight

    def forward(self, mix: Tensor) -> Tensor:
        """Return the weighted sum of rows, (B, d), for weights (B, rows)."""
        return mix.to(self.weight.dtype) @ self.weight


def soften(network: Any) -> tuple[int, int | None]:
    """Replace the class tables of a network by `Rows`.

    Returns:
        How many rows they have, 0 where there are none; and the row that stands for no class, if one does.
    """
    table = getattr(network, "class_embedding", None)
    if isinstance(table, nn.Embedding):
        network.class_embedding = Rows(table)
        return table.num_embeddings, None
    rows, nobody = 0, None
    for module in network.modules():
        inner = getattr(module, "embedding_table", None)
        if isinstance(inner, nn.Embedding):
            module.embedding_table = Rows(inner)
            module.dropout_prob = 0.0  # dropping a condition is the conditioner's business
            rows = inner.num_embeddings
            classes = int(getattr(module, "num_classes", rows))
            nobody = classes if rows > classes else None
    return rows, nobody


def nobody(count: int, width: int, row: int | None, like: Tensor) -> Tensor:
    """Return the weights that stand for no class, (count, width): a row of its own, or nothing at all."""
    mix = torch.zeros(count, width, device=like.device, dtype=like.dtype)
    if row is not None:
        mix[:, row] = 1
    return mix
