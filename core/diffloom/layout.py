"""Layout: how another library names and shapes a component's weights.

A component says it as data: each of its tensors is *welded* from foreign ones. Both directions come from the one
table, so what was read can be written again: `read(write(state))` is `state`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from diffloom.errors import CheckpointError

_LISTED = 6
_MATRIX = 2  # dimensions of a linear layer's weight
_KERNEL = 4  # and of a 1×1 convolution's, the last two of size 1
_QKV = 3


@dataclass(frozen=True)
class Weld:
    """One of our tensors, and the foreign tensors that it is made of.

    Attributes:
        ours: Its key in the component's state.
        theirs: Foreign keys, joined along the first dimension: q, k and v make one qkv.
        rows: Rows of each foreign tensor; equal parts where empty.
        dims: Dimensions of the foreign tensors where ours has another number: 2 for a linear layer that is a
            1×1 convolution here, 3 for a convolution along one axis that is, 4 for a 1×1 convolution that is a
            linear layer here.
        heads: Where the foreign rows are ordered head by head, each with its q, k and v, the number of heads; ours
            are q of all heads, then k, then v.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    dims: int | None = None
    heads: int | None = None

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return our tensor, made of the foreign ones."""
        if self.dims is not None:
            parts = [_of_dims(p, _KERNEL if self.dims < _KERNEL else _MATRIX) for p in parts]
        whole = parts[0] if len(parts) == 1 else torch.cat(list(parts))
        return whole if self.heads is None else _exchanged(whole, self.heads, _QKV)

    def split(self, whole: Tensor) -> list[Tensor]:
        """Return the foreign tensors that ours is made of."""
        whole = whole if self.heads is None else _exchanged(whole, _QKV, self.heads)
        rows = list(self.rows) or [whole.shape[0] // len(self.theirs)] * len(self.theirs)
        parts = [whole] if len(self.theirs) == 1 else list(torch.split(whole, rows))
        if self.dims is not None:
            parts = [_of_dims(p, self.dims) for p in parts]
        return parts


@dataclass(frozen=True)
class Difference:
    """How a file's keys differ from a layout's.

    Attributes:
        missing: Foreign keys that the layout needs and the file lacks.
        extra: Foreign keys of the file that have no place in the layout.
        shared: How many keys both have.
    """

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    shared: int


@dataclass(frozen=True)
class Layout:
    """How another library stores the weights of a component, as it is configured.

    Attributes:
        name: Whose layout it is: `diffusers`, `ldm`, …
        welds: Every tensor of the component's state but the constants, each once.
        prefix: Before every foreign key, in files that hold several models; other keys of such a file are passed
            over.
        aliases: (regular expression, replacement) applied in turn to foreign keys without the prefix: old spellings.
        ignored: Regular expressions of foreign keys that carry nothing.
        constants: Our tensors that a foreign file lacks, such as the scale of latents, which stands in its
            configuration: key → value, never on the meta device.
        config: What describes the component there: diffusers' config.json.
    """

    name: str
    welds: tuple[Weld, ...]
    prefix: str = ""
    aliases: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    constants: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def compare(self, keys: Iterable[str]) -> Difference:
        """Return how a file's keys differ from what this layout needs."""
        found, wanted = self._own(keys).keys(), self._wanted()
        missing = tuple(self.prefix + key for key in wanted if key not in found)
        extra = tuple(self.prefix + key for key in found if key not in wanted)
        return Difference(missing, extra, len(wanted) - len(missing))

    def read(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors from foreign ones; tensors on the meta device give shapes alone.

        Raises:
            CheckpointError: Where keys are missing or left over, or tensors cannot be joined.
        """
        difference = self.compare(state)
        if difference.missing or difference.extra:
            raise CheckpointError(
                f"these are not the weights of this component in the layout of {self.name}",
                expected=f"{len(self._wanted())} tensors",
                got=described(difference),
                remedy="give the component the parameters that the weights were trained with",
            )
        names = self._own(state)
        return {weld.ours: self._joined(weld, names, state) for weld in self.welds} | dict(self.constants)

    def write(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return foreign tensors from ours.

        Raises:
            CheckpointError: Where `state` is not that of the component.
        """
        ours = {weld.ours for weld in self.welds} | self.constants.keys()
        if ours != state.keys():
            odd = sorted(ours ^ state.keys())
            raise CheckpointError(
                "the layout and the component do not name the same tensors",
                where=f"the layout of {self.name}",
                got=f"only one of them knows {_some(odd)}",
            )
        written: dict[str, Tensor] = {}
        for weld in self.welds:
            written.update(zip(weld.theirs, weld.split(state[weld.ours]), strict=True))
        return {self.prefix + key: value.contiguous() for key, value in written.items()}

    def _wanted(self) -> dict[str, None]:
        return {key: None for weld in self.welds for key in weld.theirs}

    def _own(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the file's keys by their names here: without prefix, in today's spelling, only those that matter."""
        own = {}
        for key in keys:
            if not key.startswith(self.prefix):
                continue
            name = key.removeprefix(self.prefix)
            for pattern, replacement in self.aliases:
                name = re.sub(pattern, replacement, name)
            if not any(re.search(pattern, name) for pattern in self.ignored):
                own[name] = key
        return own

    def _joined(self, weld: Weld, names: Mapping[str, str], state: Mapping[str, Tensor]) -> Tensor:
        parts = [state[names[key]] for key in weld.theirs]
        rows = tuple(part.shape[0] if part.dim() else 0 for part in parts)
        wrong = (weld.rows and rows != weld.rows) or (not weld.rows and len(set(rows)) > 1)
        if wrong or len({part.shape[1:] for part in parts}) > 1:
            raise CheckpointError(
                f"tensors that belong together do not fit: {', '.join(names[key] for key in weld.theirs)}",
                expected=f"{', '.join(map(str, weld.rows))} rows" if weld.rows else "equal shapes",
                got=", ".join(str(tuple(part.shape)) for part in parts),
                remedy="give the component the parameters that the weights were trained with",
            )
        return weld.join(parts)


def layouts_of(part: nn.Module) -> Sequence[Layout]:
    """Return the foreign layouts that a part says it can be stored in; none where it says nothing."""
    say = getattr(part, "layouts", None)
    return tuple(say()) if callable(say) else ()


def described(difference: Difference) -> str:
    """Return a difference in a few words, with some of the keys."""
    counted = ((difference.missing, "missing"), (difference.extra, "left over"))
    parts = [f"{len(keys)} {what} ({_some(keys)})" for keys, what in counted if keys]
    return " and ".join(parts) or "no difference"


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more


def _of_dims(weight: Tensor, dims: int) -> Tensor:
    """Return the weight of a linear layer or 1×1 convolution with so many dimensions; others stay as they are."""
    if weight.dim() < _MATRIX or weight.shape[_MATRIX:].numel() != 1:
        return weight
    return weight.reshape(*weight.shape[:_MATRIX], *[1] * (dims - _MATRIX))


def _exchanged(whole: Tensor, outer: int, inner: int) -> Tensor:
    """Return rows ordered by (outer, inner, rest) in the order (inner, outer, rest)."""
    return whole.reshape(outer, inner, -1, *whole.shape[1:]).transpose(0, 1).reshape(whole.shape)
