import subprocess
import sys

import pytest

FOUND = """
import importlib.util, sys
sys.exit(importlib.util.find_spec("torchvision") is None)
"""
USE = """
import torch
from diffloom.vision_compat import ensure_torchvision
import sys
assert "torchvision" not in sys.modules, "importing the module must do nothing"
assert ensure_torchvision() is True
first = sys.modules["torchvision"]
assert ensure_torchvision() is True
assert sys.modules["torchvision"] is first
import gc; gc.collect()
assert torch.ops.torchvision.nms is not None
from diffusers import UNet2DModel
import torchmetrics
"""
ABSENT = """
import sys
sys.modules["torchvision"] = None
from diffloom.vision_compat import ensure_torchvision
try:
    print(ensure_torchvision())
except ModuleNotFoundError as error:
    print(error.name)
"""
BROKEN = """
import sys, pathlib, tempfile
root = pathlib.Path(tempfile.mkdtemp())
(root / "torchvision").mkdir()
(root / "torchvision" / "__init__.py").write_text("raise RuntimeError('out of luck')")
sys.path.insert(0, str(root))
from diffloom.vision_compat import ensure_torchvision
ensure_torchvision()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_torchvision_and_what_needs_it_can_be_imported() -> None:
    if run(FOUND).returncode:
        pytest.skip("torchvision is not installed")
    done = run(USE)
    assert done.returncode == 0, done.stderr


def test_its_absence_is_no_error() -> None:
    assert run(ABSENT).stdout.strip() == "False"


def test_another_failure_is_told_as_it_is() -> None:
    assert "RuntimeError: out of luck" in run(BROKEN).stderr
