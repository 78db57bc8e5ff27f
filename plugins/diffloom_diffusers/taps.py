"""Taps of diffusers' U-Nets, heard and edited through hooks that last for one call.

`down.N` is what the way down makes step by step, which goes on and is kept for the way up; `skip.N` is what the way up
receives of it; `mid` leaves the middle; `up.N` is the output of one block of the way up, its enlargement included. A
call that edits and reads nothing meets no hook.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffloom.condition import Condition
from diffloom.errors import IncompatibleParts

_SKIPS = "res_hidden_states_tuple"
_PLACE = 1  # of the skips among the arguments of a block of the way up


class Listening:
    """A context within which a network's taps are edited, and those that are asked for are kept in `maps`.

    Args:
        network: One of diffusers' U-Nets.
        condition: Its `affine` says what is edited.
        names: Taps to keep.
    """

    def __init__(self, network: Any, condition: Condition, names: Sequence[str]) -> None:
        self.network, self.condition, self.names = network, condition, frozenset(names)
        self.maps: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "Listening":
        if not (self.names or self.condition.affine):
            return self
        for index, step in enumerate(_steps(self.network)):
            self._handles.append(step.register_forward_hook(self._leaving(f"down.{index}")))
        blocks = list(self.network.up_blocks)
        left = _skips(self.network)
        for index, block in enumerate(blocks):
            left -= len(block.resnets)
            self._handles.append(block.register_forward_pre_hook(self._receiving(left), with_kwargs=True))
            self._handles.append(block.register_forward_hook(self._leaving(f"up.{index}")))
        if self.network.mid_block is not None:
            self._handles.append(self.network.mid_block.register_forward_hook(self._leaving("mid")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _tap(self, name: str, h: Tensor) -> Tensor:
        h = self.condition.edit(name, h)
        if name in self.names:
            self.maps[name] = h
        return h

    def _receiving(self, first: int) -> Any:
        def hook(block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            skips = named[_SKIPS] if _SKIPS in named else given[_PLACE]
            edited = tuple(self._tap(f"skip.{first + place}", skip) for place, skip in enumerate(skips))
            if _SKIPS in named:
                return given, {**named, _SKIPS: edited}
            return (*given[:_PLACE], edited, *given[_PLACE + 1 :]), named

        return hook

    def _leaving(self, name: str) -> Any:
        def hook(block: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
            if isinstance(output, tuple):
                return (self._tap(name, output[0]), *output[1:])
            return self._tap(name, output)

        return hook


def names(network: Any) -> list[str]:
    """Return the names of a network's taps, in the order in which they are computed; none where it is no U-Net."""
    blocks = getattr(network, "up_blocks", None)
    if not isinstance(blocks, nn.ModuleList) or not all(hasattr(block, "resnets") for block in blocks):
        return []
    middle = ["mid"] if getattr(network, "mid_block", None) is not None else []
    return [
        *(f"down.{index}" for index in range(len(_steps(network)))),
        *(f"skip.{index}" for index in range(_skips(network))),
        *middle,
        *(f"up.{index}" for index in range(len(blocks))),
    ]


def check(known: Sequence[str], condition: Condition, read: Sequence[str]) -> None:
    """Refuse names that are no taps.

    Raises:
        IncompatibleParts: Where there is one.
    """
    wrong = sorted({*condition.affine, *read} - set(known))
    if wrong:
        raise IncompatibleParts(
            "a tap is edited or read that the network does not publish",
            where="denoiser",
            expected=f"some of {', '.join(known)}" if known else "no taps: it is no U-Net",
            got=", ".join(wrong),
        )


def shortened(network: Any) -> bool:
    """Leave out a network's way up, so that it answers with its middle; False where its way down is no plain one."""
    if not _steps(network) or network.mid_block is None:
        return False
    network.up_blocks = nn.ModuleList()
    for name in ("conv_norm_out", "conv_act", "conv_out"):
        setattr(network, name, nn.Identity())
    return True


def _steps(network: Any) -> list[nn.Module]:
    """Return the module that ends each step of the way down, the stem first; none where a block has other steps."""
    steps: list[nn.Module] = [network.conv_in]
    for block in network.down_blocks:
        ends = getattr(block, "attentions", None) or getattr(block, "resnets", None)
        if ends is None or len(ends) != len(block.resnets) or hasattr(block, "skip_conv"):
            return []
        steps += [*ends, *(block.downsamplers or ())]
    up = _skips(network)
    return steps if up in (0, len(steps)) else []


def _skips(network: Any) -> int:
    return sum(len(block.resnets) for block in network.up_blocks)
