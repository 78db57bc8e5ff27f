"""Prepared weights: what inference on a CPU can compute once instead of at every call.

Law: whatever is prepared gives the plain layer's output up to rounding, and is never older than the weights. It is
dropped when they change, when the layer trains, moves or is copied, and is no part of any state.
"""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad


class Prepared:
    """The weights of one layer in other layouts, valid while the weights stay as they are.

    In-place changes are seen by the tensor's version. What hides from it (`tensor.data`, some fused optimisers) is
    caught by the owner, which calls `drop` whenever it runs with gradients or changes mode.
    """

    def __init__(self) -> None:
        self._weight: Callable[[], Tensor | None] = lambda: None
        self._state: tuple[int, int] = (0, 0)
        self._layouts: dict[object, Tensor] = {}

    def get(self, weight: Tensor, layout: object, make: Callable[[], Tensor]) -> Tensor:
        """Return the weight in the layout, made now if it was not made since the weight last changed."""
        state = (weight.data_ptr(), weight._version)
        if self._weight() is not weight or state != self._state:
            self._layouts.clear()
            self._weight, self._state = weakref.ref(weight), state
        if layout not in self._layouts:
            self._layouts[layout] = make()
        return self._layouts[layout]

    def drop(self) -> None:
        """Forget everything."""
        self._layouts.clear()

    def __bool__(self) -> bool:
        return bool(self._layouts)

    def __reduce__(self) -> tuple[type["Prepared"], tuple[()]]:
        """Copies and pickles start empty."""
        return Prepared, ()


def on_cpu(x: Tensor, weight: Tensor) -> bool:
    """Whether a layer may compute in its own way: plain tensors on a CPU, while nobody traces, counts or maps."""
    return (
        x.device.type == "cpu"
        and weight.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and type(x) is Tensor
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and not torch._C._functorch.is_functorch_wrapped_tensor(weight)
        and forward_ad._current_level < 0
    )


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """Return the type to compute in: float32 for a bfloat16 that this CPU would only emulate, several times slower."""
    return torch.float32 if dtype == torch.bfloat16 and not _native_bfloat16() else dtype


def _native_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
