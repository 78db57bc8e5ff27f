"""Condition: the four ports through which a denoiser can be told something, and no other.

`context` (cross-attention tokens), `vector` (added to the time embedding), `concat` (channels beside x_t) and
`affine`, which edits named feature maps, the denoiser's *taps*:  h ← (1 + scale) ⊙ h + shift.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Tap:
    """A feature map that a denoiser publishes under a name.

    Attributes:
        name: `down.N` (outputs on the way down, which go on and are what the decoder receives), `skip.N` (what the
            decoder receives alone), `mid`, `up.N` (block outputs), `res.…` (a residual branch before its skip is
            added) or `norm.….0`, `norm.….1` (the normalisations of a residual block).
        channels: Channels of the map.
        stride: How many times smaller it is than x_t along each spatial side.
        replaces: Whether an edit stands in the place of what the denoiser itself does there, a normalisation, and so
            takes the map before it; elsewhere it takes the map that the denoiser has made.
    """

    name: str
    channels: int
    stride: int
    replaces: bool = False


@dataclass(frozen=True)
class Ports:
    """Widths of the ports: what a denoiser accepts, or what a conditioner gives.

    Attributes:
        context: Width d of the context tokens (B, M, d); 0 for none.
        vector: Width d of the vector (B, d); 0 for none.
        concat: Channels beside x_t; 0 for none.
        affine: Taps that are edited (conditioner), or that can be (denoiser): name → channels.
    """

    context: int = 0
    vector: int = 0
    concat: int = 0
    affine: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Affine:
    """An edit of one tap: h ← (1 + scale) ⊙ h + shift, after group normalisation where `groups` asks for it.

    Attributes:
        scale: Broadcastable to the tap, or `None` for 0.
        shift: Broadcastable to the tap, or `None` for 0.
        groups: Normalise h in this many groups first (StableSR's released weights need it); 0 for none.
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    groups: int = 0

    def __call__(self, h: Tensor) -> Tensor:
        """Return the edited feature map; `h` (B, C, *spatial) is left as it was."""
        if self.groups:
            h = functional.group_norm(h, self.groups)
        if self.scale is not None:
            h = torch.addcmul(h, self.scale.to(h.dtype), h)
        if self.shift is not None:
            h = h + self.shift.to(h.dtype)
        return h

    def __add__(self, other: "Affine") -> "Affine":
        """Return both edits at once: scales add, shifts add."""
        return Affine(_sum(self.scale, other.scale), _sum(self.shift, other.shift), max(self.groups, other.groups))


@dataclass(frozen=True)
class Condition:
    """What a denoiser is told, for a whole batch.

    Attributes:
        context: (B, M, d) tokens for cross-attention.
        context_mask: (B, M) bool, true where a token counts; `None` when all do.
        vector: (B, d), added to the time embedding.
        concat: (B, C′, *spatial), channels beside x_t.
        affine: Tap name → edit.
        projected: What a denoiser made of each token of this very context, by layer, (B, M, d′); see
            `Denoiser.prepare`. It is joined as the tokens are, and forgotten where only some tokens have it.
    """

    context: Tensor | None = None
    context_mask: Tensor | None = None
    vector: Tensor | None = None
    concat: Tensor | None = None
    affine: Mapping[str, Affine] = field(default_factory=dict)
    projected: Mapping[str, Tensor] = field(default_factory=dict)

    def __or__(self, other: "Condition") -> "Condition":
        """Return both conditions together: tokens and channels are joined, vectors and edits added."""
        affine = dict(self.affine)
        for name, edit in other.affine.items():
            affine[name] = affine[name] + edit if name in affine else edit
        return Condition(
            context=_join(self.context, other.context, 1),
            context_mask=_join_masks(self, other),
            vector=_sum(self.vector, other.vector),
            concat=_join(self.concat, other.concat, 1),
            affine=affine,
            projected=_join_projected(self, other),
        )

    def speaks_by_tokens(self) -> bool:
        """Return whether it fills the context port and no other."""
        return self.context is not None and self.vector is None and self.concat is None and not self.affine

    def spread(self, h: Tensor) -> Tensor:
        """Return h (B, …) as often as there are branches of B items in the context, one after another."""
        count = 1 if self.context is None else len(self.context) // len(h)
        return h if count < 2 else h.repeat(count, *[1] * (h.dim() - 1))

    def edit(self, tap: str, h: Tensor) -> Tensor:
        """Return the feature map `h` of `tap`, edited if this condition asks for it, else `h` itself."""
        change = self.affine.get(tap)
        return h if change is None else change(h)


def stack(codes: Sequence[object]) -> object:
    """Return the codes (equal trees of batch-first tensors) joined along the batch: guidance branches in one pass."""
    return pytree.tree_map(lambda *leaves: torch.cat(leaves), codes[0], *codes[1:])


def choose(keep: Tensor, code: object, null: object) -> object:
    """Return `code` for the items where `keep` (B,) bool is true, `null` for the others, leaf by leaf."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(keep.to(a.device).view(-1, *[1] * (a.dim() - 1)), a, b)

    return pytree.tree_map(pick, code, null)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _join(a: Tensor | None, b: Tensor | None, dim: int) -> Tensor | None:
    return b if a is None else a if b is None else torch.cat([a, b], dim)


def _join_masks(a: Condition, b: Condition) -> Tensor | None:
    if a.context_mask is None and b.context_mask is None:
        return None
    parts = []
    for side in (a, b):
        if side.context is not None:
            everyone = torch.ones(side.context.shape[:2], dtype=torch.bool, device=side.context.device)
            parts.append(everyone if side.context_mask is None else side.context_mask)
    return torch.cat(parts, 1)


def _join_projected(a: Condition, b: Condition) -> Mapping[str, Tensor]:
    if a.context is None or b.context is None:
        return b.projected if a.context is None else a.projected
    if a.projected.keys() != b.projected.keys():
        return {}
    return {name: torch.cat([tokens, b.projected[name]], 1) for name, tokens in a.projected.items()}


Still = tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]


def _flatten(value: Any) -> tuple[list[Any], Still]:
    """Split into what holds tensors, and what stays as it is: absent ports and numbers."""
    named = {f.name: getattr(value, f.name) for f in fields(value)}
    moving = {name: part for name, part in named.items() if isinstance(part, Tensor | Affine | Mapping)}
    still = tuple((name, part) for name, part in named.items() if name not in moving)
    return list(moving.values()), (tuple(moving), still)


def _unflatten(kind: type[Any], values: Iterable[Any], still: Still) -> Any:
    return kind(**dict(zip(still[0], values, strict=True)), **dict(still[1]))


for _kind in (Condition, Affine):
    pytree.register_pytree_node(
        _kind, _flatten, partial(_unflatten, _kind), serialized_type_name=f"diffloom.{_kind.__name__}"
    )
