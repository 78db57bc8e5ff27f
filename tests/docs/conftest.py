"""Pages may use libraries that import torchvision."""

from diffloom.vision_compat import ensure_torchvision

ensure_torchvision()
