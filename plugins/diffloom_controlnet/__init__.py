"""ControlNet and T2I-Adapter: frozen denoisers that follow pictures (Zhang et al. 2023; Mou et al. 2023)."""

from diffloom_controlnet.adapter import Adapter
from diffloom_controlnet.controlnet import ControlNet
from diffloom_controlnet.hint import HintEncoder, hint_of

__all__ = ["Adapter", "ControlNet", "HintEncoder", "hint_of"]
