"""Small models of diffusers in folders, made once."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from diffloom.vision_compat import ensure_torchvision
from diffloom_diffusers.examples import autoencoders, networks

ensure_torchvision()  # diffusers' models import it


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return name → folder of a model: plain, told and transformer are networks, kl, vq and tiny autoencoders."""
    root = tmp_path_factory.mktemp("diffusers")
    made = [*networks(root), *autoencoders(root)]
    return {Path(each["folder"]).name: Path(each["folder"]) for each in made}
