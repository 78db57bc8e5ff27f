"""HED: the published architecture, and weights in the layouts of its two ports."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from diffloom.errors import CheckpointError, DataError
from diffloom_hints.hed import HED, load
from diffloom_hints.soft import SoftEdges

NAMES, DEPTHS = ("One", "Two", "Thr", "Fou", "Fiv"), (2, 2, 3, 3, 3)


@pytest.fixture(scope="module")
def network() -> HED:
    """HED whose answers are about the image: random weights of a size that keeps the maps alive."""
    torch.manual_seed(0)
    made = HED().eval().requires_grad_(False)
    for name, value in made.named_parameters():
        if name.endswith("weight") and value.dim() == 4 and value.shape[-1] == 3:
            torch.nn.init.kaiming_normal_(value)
        elif name.startswith("sides") and name.endswith("weight"):
            torch.nn.init.normal_(value, std=2e-3)
    return made


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def test_the_parameters_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        made = HED()
    count = {part: sum(p.numel() for p in getattr(made, part).parameters()) for part in ("stages", "sides", "fuse")}
    widths = [
        (3, 64),
        (64, 64),
        (64, 128),
        (128, 128),
        (128, 256),
        (256, 256),
        (256, 256),
        (256, 512),
        *[(512, 512)] * 5,
    ]
    assert count == {
        "stages": sum(9 * i * o + o for i, o in widths),
        "sides": 64 + 128 + 256 + 512 + 512 + 5,
        "fuse": 6,
    }
    assert count["stages"] == 14_714_688
    assert sum(count.values()) == 14_716_171


def test_each_stage_is_half_as_large_as_the_one_before(network: HED, image: Tensor) -> None:
    shapes = [tuple(side.shape) for side in network.side_outputs(image)]
    assert shapes == [(1, 1, 32 >> n, 48 >> n) for n in range(5)]
    found = network(image)
    assert found.shape == (1, 1, 32, 48)
    assert 0 <= float(found.min()) < float(found.max()) <= 1


def _ported(network: HED) -> dict[str, Tensor]:
    """Return weights as pytorch-hed names them; it reads blue first."""
    state, theirs = network.state_dict(), {}
    for number, (name, depth) in enumerate(zip(NAMES, DEPTHS, strict=True)):
        for place in range(depth):
            for kind in ("weight", "bias"):
                value = state[f"stages.{number}.{2 * place}.{kind}"]
                theirs[f"moduleVgg{name}.{2 * place + (number > 0)}.{kind}"] = value
        for kind in ("weight", "bias"):
            theirs[f"moduleScore{name}.{kind}"] = state[f"sides.{number}.{kind}"]
    theirs |= {f"moduleCombine.0.{kind}": state[f"fuse.{kind}"] for kind in ("weight", "bias")}
    theirs["moduleVggOne.0.weight"] = theirs["moduleVggOne.0.weight"].flip(1)
    return {key: value.contiguous() for key, value in theirs.items()}


def test_weights_of_pytorch_hed_are_read_with_blue_first(network: HED, image: Tensor, tmp_path: Path) -> None:
    save_file(_ported(network), tmp_path / "hed.safetensors")
    loaded = load(str(tmp_path / "hed.safetensors"))
    assert torch.equal(loaded(image), network(image))
    assert not loaded.training
    assert loaded.mean.flatten().tolist() == pytest.approx([122.67891434, 116.66876762, 104.00698793])


def test_weights_of_controlnets_annotator_fuse_by_the_mean(network: HED, image: Tensor, tmp_path: Path) -> None:
    state, theirs = network.state_dict(), {"norm": torch.tensor([120.0, 110.0, 100.0]).view(1, 3, 1, 1)}
    for number, depth in enumerate(DEPTHS):
        for kind in ("weight", "bias"):
            for place in range(depth):
                theirs[f"block{number + 1}.convs.{place}.{kind}"] = state[f"stages.{number}.{2 * place}.{kind}"]
            theirs[f"block{number + 1}.projection.{kind}"] = state[f"sides.{number}.{kind}"]
    save_file(theirs, tmp_path / "hed.safetensors")
    loaded = load(str(tmp_path / "hed.safetensors"))
    logits = [functional.interpolate(side, size=(32, 48), mode="bilinear") for side in loaded.side_outputs(image)]
    assert torch.allclose(loaded(image), torch.stack(logits).mean(0).sigmoid(), atol=1e-6)
    shifted = image + (torch.tensor([120.0, 110.0, 100.0]) - network.mean.flatten()).view(1, 3, 1, 1) / 255
    assert torch.allclose(loaded.side_outputs(shifted)[0], network.side_outputs(image)[0], atol=1e-4)


def test_our_own_file_is_used_by_the_hint(network: HED, image: Tensor, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "hed.safetensors")
    hint = SoftEdges(weights=str(tmp_path / "hed.safetensors"), copies=3)
    assert hint.note == "HED"
    drawn = hint({"image": image[0] * 2 - 1}, torch.Generator())["hint"]
    assert torch.allclose(drawn, network(image)[0].expand(3, -1, -1), atol=1e-5)
    bands = torch.rand(7, 16, 16) * 2 - 1
    grey = ((bands + 1) / 2).mean(0).expand(1, 3, -1, -1)
    assert torch.allclose(hint({"image": bands}, torch.Generator())["hint"][:1], network(grey)[0], atol=1e-5)
    with pytest.raises(DataError, match="16"):
        hint({"image": bands[:, :12]}, torch.Generator())


def test_other_files_are_refused_with_a_reason(network: HED, tmp_path: Path) -> None:
    state = network.state_dict()
    del state["fuse.bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match="another network"):
        SoftEdges(weights=str(tmp_path / "less.safetensors"))
    with pytest.raises(CheckpointError, match="pickle"):
        SoftEdges(weights=str(tmp_path / "hed.pth"))
    with pytest.raises(CheckpointError):
        SoftEdges(weights=str(tmp_path / "nothing.safetensors"))
