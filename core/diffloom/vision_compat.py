"""torchvision under a torch that its binary does not fit.

The ordinary torchvision wheel is built for CUDA. Under a CPU torch its `_C` library cannot be loaded, and `import
torchvision` fails because two operators are missing: `RuntimeError: operator torchvision::nms does not exist`. With it
fail timm, torchmetrics and diffusers' models, none of which needs those operators. Declaring them is enough.

Modules that import one of these call `ensure_torchvision()` first; importing this module does nothing.
"""

import importlib
import sys

import torch

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None  # kept: the operators would vanish with it


def ensure_torchvision() -> bool:
    """Make `import torchvision` work where it is installed; a healthy torchvision is left as it is.

    What needs the binary (`torchvision.ops.nms`, decoding of images) still says that it is missing.

    Returns:
        Whether torchvision can be imported now; `False` when it is not installed.

    Raises:
        RuntimeError: torchvision fails to import for another reason.
    """
    global _library
    try:
        importlib.import_module("torchvision")
        return True
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        return False
    except RuntimeError as error:
        if _library is not None or "torchvision::" not in str(error):
            raise
    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:  # a fragment: "DEF" would claim the whole name space
        _library.define(name + _SIGNATURE)  # type: ignore[no-untyped-call]  # torch types neither
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half-initialised by the failed import
    importlib.import_module("torchvision")
    return True
