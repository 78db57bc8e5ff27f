"""Import: foreign weights verified key by key, pickles read as tensors alone, nothing written before all fits."""

import json
import os
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.core.conftest import Tiny
from torch import Tensor

import diffloom
from diffloom import Layout, Weld
from diffloom.cli import main
from diffloom.errors import CheckpointError, RecipeError
from diffloom.recipe.importing import convert, import_weights
from diffloom.recipe.recipe import load
from diffloom.unpickled import unpickled

CONFIG = {"_class_name": "Net", "width": 8, "heads": [2, 2], "sample_size": 8}


class Known(Tiny):
    """A denoiser whose weights other libraries hold under other names."""

    def layouts(self) -> Sequence[Layout]:
        """Return a folder's layout and that of a file with several models."""
        keys = list(self.state_dict())
        return (
            Layout("theirs", tuple(Weld(key, (f"net.{key}",)) for key in keys), config=CONFIG),
            Layout("single", tuple(Weld(key, (key,)) for key in keys), prefix="model.diffusion_model."),
        )


@pytest.fixture
def recipe(tmp_path: Path, recipe_file: Path) -> Iterator[diffloom.Recipe]:
    file = recipe_file.with_name("known.yaml")
    file.write_text(recipe_file.read_text().replace("tiny", "known"))
    with diffloom.registry.add("denoiser", "known", Known):
        yield load(file)


@pytest.fixture
def denoiser(recipe: diffloom.Recipe) -> Any:
    torch.manual_seed(1)
    return recipe.build().denoiser


def single(denoiser: Any, average: float = 0.0) -> dict[str, Tensor]:
    """Return a file's content: the network, its averages `average` larger, and a stranger's tensor."""
    net: dict[str, Tensor] = denoiser.layouts()[1].write(denoiser.state_dict())
    named = {"model_ema." + key.removeprefix("model.").replace(".", ""): value + average for key, value in net.items()}
    return net | (named if average else {}) | {"first_stage_model.w": torch.ones(2)}


def same(one: dict[str, Tensor], other: dict[str, Tensor], plus: float = 0.0) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key] + plus) for key in one)


def test_a_pipelines_folder_becomes_the_parts_weights(tmp_path: Path, recipe: diffloom.Recipe, denoiser: Any) -> None:
    (tmp_path / "pipe" / "unet").mkdir(parents=True)
    (tmp_path / "pipe" / "vae").mkdir()
    (tmp_path / "pipe" / "model_index.json").write_text("{}")
    config = CONFIG | {"heads": 2, "width": 9, "sample_size": 64}
    (tmp_path / "pipe" / "unet" / "config.json").write_text(json.dumps(config))
    save_file(denoiser.layouts()[0].write(denoiser.state_dict()), tmp_path / "pipe" / "unet" / "m.safetensors")
    save_file({"other": torch.ones(1)}, tmp_path / "pipe" / "vae" / "m.safetensors")
    result = import_weights([tmp_path / "pipe"], recipe, tmp_path / "out")
    part = result.imported[0]
    assert (part.role, part.layout, part.left) == ("denoiser", "theirs", 0)
    assert part.doubts == ("width is 9 there and 8 in the recipe",)
    assert same(load_file(part.file), denoiser.state_dict())
    assert result.absent == ("conditioners.digit",)
    assert [path.name for path in result.unused] == ["vae"]
    built = load(tmp_path / "known.yaml", result.overlay).build()
    assert same(dict(built.denoiser.state_dict()), denoiser.state_dict())


@pytest.mark.parametrize("average", [False, True])
def test_a_single_file_gives_the_network_or_its_average(
    tmp_path: Path, recipe: diffloom.Recipe, denoiser: Any, average: bool
) -> None:
    save_file(single(denoiser, average=1.0), tmp_path / "all.safetensors")
    result = import_weights([tmp_path / "all.safetensors"], recipe, tmp_path / "out", average=average)
    assert result.imported[0].layout == "single"
    assert same(load_file(result.imported[0].file), denoiser.state_dict(), plus=float(average))


def test_averages_that_are_not_there_are_not_made_up(tmp_path: Path, recipe: diffloom.Recipe, denoiser: Any) -> None:
    save_file(single(denoiser), tmp_path / "all.safetensors")
    with pytest.raises(CheckpointError, match="no averaged"):
        import_weights([tmp_path / "all.safetensors"], recipe, tmp_path / "out", average=True)


def test_nothing_is_written_where_a_part_does_not_fit(tmp_path: Path, recipe: diffloom.Recipe, denoiser: Any) -> None:
    theirs = single(denoiser)
    theirs["model.diffusion_model.stray"] = theirs.pop("model.diffusion_model.inner.bias")
    save_file(theirs, tmp_path / "all.safetensors")
    with pytest.raises(RecipeError, match=r"1 missing \(model\.diffusion_model\.inner\.bias\)"):
        import_weights([tmp_path / "all.safetensors"], recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_something_else_are_told(tmp_path: Path, recipe: diffloom.Recipe) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="none of these weights belong to a part"):
        import_weights([tmp_path / "other.safetensors"], recipe, tmp_path / "out")


class Callback:
    """What a trainer leaves in its checkpoints."""

    def __init__(self, value: int) -> None:
        self.value = value


class Command:
    """What an attacker leaves in them."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        """Ask for the command to be run when this is read."""
        return os.system, (self.command,)


def test_a_trainers_pickle_gives_its_tensors(
    tmp_path: Path, recipe: diffloom.Recipe, denoiser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("a_trainer")
    monkeypatch.setitem(sys.modules, "a_trainer", module)
    monkeypatch.setattr(Callback, "__module__", "a_trainer")
    monkeypatch.setattr(module, "Callback", Callback, raising=False)
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": single(denoiser), "callbacks": {Callback: Callback(3)}, "step": 7}, file)
    monkeypatch.delitem(sys.modules, "a_trainer")
    result = import_weights([file], recipe, tmp_path / "out")
    assert same(load_file(result.imported[0].file), denoiser.state_dict())


def test_a_pickle_never_runs_code(tmp_path: Path) -> None:
    mark = tmp_path / "was-here"
    torch.save({"state_dict": {"w": torch.ones(1)}, "x": Command(f"touch {mark}")}, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match="asks for code to be run"):
        unpickled(tmp_path / "bad.ckpt")
    assert not mark.exists()


def test_the_oldest_pickles_are_read(tmp_path: Path) -> None:
    torch.save({"a": {"w": torch.arange(3.0)}}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    file, count = convert(tmp_path / "old.pth", tmp_path / "out")
    assert count == 1
    assert torch.equal(load_file(file)["a.w"], torch.arange(3.0))


def test_the_command_says_what_it_did(
    tmp_path: Path, recipe: diffloom.Recipe, denoiser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(single(denoiser), tmp_path / "all.safetensors")
    words = ["import", str(tmp_path / "all.safetensors"), "--out", str(tmp_path / "out")]
    assert main([*words, "--recipe", str(tmp_path / "known.yaml")]) == 0
    said = capsys.readouterr()
    assert "1 other tensors of all.safetensors are not this part's" in said.out
    assert "conditioners.digit: nothing in these files" in said.out
    assert main(words) == 2
    assert "add --recipe" in capsys.readouterr().err


@pytest.mark.skipif("DIFFLOOM_DATA" not in os.environ, reason="needs the real weights in DIFFLOOM_DATA")
@pytest.mark.parametrize(("name", "count"), [("alex", 5), ("vgg", 5), ("squeeze", 7)])
def test_published_pickles_are_read(tmp_path: Path, name: str, count: int) -> None:
    file = Path(os.environ["DIFFLOOM_DATA"]) / "weights" / "lpips" / f"{name}.pth"
    assert convert(file, tmp_path)[1] == count
