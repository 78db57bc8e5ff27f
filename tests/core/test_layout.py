"""Foreign layouts: one table, both directions, and errors that say which keys."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from diffloom.errors import CheckpointError, DiffloomError
from diffloom.layout import Layout, Weld
from diffloom.recipe.settings import ModuleSettings
from diffloom.recipe.weights import Weights
from diffloom.stored import stored


class Attention(nn.Module):
    """A part whose q, k and v are one 1×1 convolution here, and three linear layers elsewhere."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Linear(width, width, bias=False)

    def layouts(self) -> Sequence[Layout]:
        """Return two spellings of the same."""
        names = ("to_q", "to_k", "to_v")
        linear = (
            Weld("qkv.weight", tuple(f"{n}.weight" for n in names), dims=2),
            Weld("qkv.bias", tuple(f"{n}.bias" for n in names)),
            Weld("out.weight", ("to_out.weight",), dims=4),
        )
        aliases = ((r"^query\.", "to_q."),)
        return (
            Layout("diffusers", linear, aliases=aliases, ignored=(r"position_ids$",)),
            Layout("ldm", (*linear[:2], Weld("out.weight", ("proj.weight",), dims=4)), prefix="model."),
        )


def foreign(part: Attention, index: int = 0) -> dict[str, Tensor]:
    return part.layouts()[index].write(part.state_dict())


def load(part: nn.Module, name: Path, *, pretend: bool = False) -> Weights:
    weights = Weights(Path("runs"), pretend=pretend)
    weights.apply(part, ModuleSettings(weights=str(name)), "denoiser", "denoiser")
    return weights


@pytest.mark.parametrize("index", [0, 1])
def test_what_was_written_is_read_again(index: int) -> None:
    part = Attention()
    layout = part.layouts()[index]
    back = layout.read(foreign(part, index))
    assert back.keys() == part.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in part.state_dict().items())


@given(rows=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_rows_of_any_size_come_apart_and_together(rows: list[int]) -> None:
    weld = Weld("a", tuple(map(str, range(len(rows)))), rows=tuple(rows))
    whole = torch.arange(sum(rows) * 2.0).view(-1, 2)
    parts = weld.split(whole)
    assert [len(part) for part in parts] == rows
    assert torch.equal(weld.join(parts), whole)


def test_three_linear_layers_are_one_convolution() -> None:
    part = Attention()
    theirs = foreign(part)
    x = torch.randn(2, 4)
    ours = part.qkv(x[..., None, None])[..., 0, 0]
    apart = [nn.functional.linear(x, theirs[f"to_{n}.weight"], theirs[f"to_{n}.bias"]) for n in "qkv"]
    torch.testing.assert_close(ours, torch.cat(apart, 1))
    assert theirs["to_out.weight"].shape == (4, 4, 1, 1)


@given(st.integers(1, 4), st.integers(1, 3))
def test_rows_ordered_by_heads_are_ordered_by_parts_here(heads: int, width: int) -> None:
    weld = Weld("qkv.weight", ("qkv.weight",), dims=3, heads=heads)
    rows = [(head, part, row) for head in range(heads) for part in range(3) for row in range(width)]
    foreign_rows = torch.tensor(rows).view(-1, 3, 1)
    ours = weld.join([foreign_rows])
    assert ours.shape == (len(rows), 3, 1, 1)
    assert ours.flatten(1).tolist() == sorted(map(list, rows), key=lambda row: (row[1], row[0], row[2]))
    assert torch.equal(weld.split(ours)[0], foreign_rows)


def test_old_spellings_and_empty_keys_are_known() -> None:
    part = Attention()
    theirs = foreign(part)
    old = {key.replace("to_q", "query"): value for key, value in theirs.items()} | {"position_ids": torch.arange(3)}
    assert torch.equal(part.layouts()[0].read(old)["qkv.weight"], part.qkv.weight)


def test_missing_and_extra_keys_are_named() -> None:
    part = Attention()
    theirs = foreign(part)
    theirs["stray.weight"] = theirs.pop("to_k.bias")
    with pytest.raises(CheckpointError, match=r"1 missing \(to_k\.bias\) and 1 left over \(stray\.weight\)"):
        part.layouts()[0].read(theirs)


def test_parts_that_do_not_fit_are_named() -> None:
    theirs = foreign(Attention())
    theirs["to_k.bias"] = torch.zeros(5)
    with pytest.raises(CheckpointError, match=r"to_q\.bias, to_k\.bias, to_v\.bias"):
        Attention().layouts()[0].read(theirs)


def test_a_component_that_forgets_a_tensor_is_told() -> None:
    part = Attention()
    layout = Layout("half", part.layouts()[0].welds[:2])
    with pytest.raises(CheckpointError, match=r"out\.weight"):
        layout.write(part.state_dict())


@pytest.mark.parametrize("index", [0, 1])
def test_a_recipe_takes_foreign_weights(tmp_path: Path, index: int) -> None:
    part, other = Attention(), Attention()
    extra = {"first_stage_model.w": torch.ones(1)} if index else {}
    save_file(foreign(part, index) | extra, tmp_path / "model.safetensors")
    load(other, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(part.state_dict().values(), other.state_dict().values(), strict=True))


def test_shards_are_one(tmp_path: Path) -> None:
    part, other = Attention(), Attention()
    theirs = foreign(part)
    shards = {f"m-{i}.safetensors": {key: value} for i, (key, value) in enumerate(theirs.items())}
    for name, tensors in shards.items():
        save_file(tensors, tmp_path / name)
    index = {"weight_map": {key: name for name, tensors in shards.items() for key in tensors}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    load(other, tmp_path)
    assert torch.equal(part.qkv.weight, other.qkv.weight)
    (tmp_path / "m-0.safetensors").unlink()
    with pytest.raises(CheckpointError, match="1 of 7 shards are missing"):
        load(other, tmp_path)


def test_wrong_shapes_are_told_without_reading(tmp_path: Path) -> None:
    save_file(foreign(Attention(8)), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="in the layout of diffusers"):
        load(Attention(4), tmp_path, pretend=True)


def test_a_pickle_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for name in ("model.ckpt", "diffusion_pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"diffloom import .*model\.ckpt"):
        load(Attention(), tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="this is a pickle"):
        load(Attention(), tmp_path)


def test_a_folder_that_could_mean_several_files_says_so(tmp_path: Path) -> None:
    theirs = foreign(Attention())
    save_file(theirs, tmp_path / "model.fp16.safetensors")
    save_file(theirs, tmp_path / "model.safetensors")
    assert stored(tmp_path).files["to_q.bias"].name == "model.safetensors"
    save_file(theirs, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors, other\.safetensors"):
        stored(tmp_path)


def test_a_pipeline_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="one of its folders unet"):
        stored(tmp_path)


def test_a_path_may_hold_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, other = Attention(), Attention()
    save_file(foreign(part), tmp_path / "model.safetensors")
    monkeypatch.setenv("WEIGHTS_HERE", str(tmp_path))
    load(other, Path("$WEIGHTS_HERE") / "model.safetensors")
    assert torch.equal(part.qkv.weight, other.qkv.weight)
    monkeypatch.delenv("WEIGHTS_HERE")
    with pytest.raises(DiffloomError, match="the environment variable WEIGHTS_HERE is not set"):
        load(other, Path("$WEIGHTS_HERE"))
