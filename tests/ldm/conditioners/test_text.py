"""Texts: the vocabulary keeps every text, is kept with the weights, and transformers are the published ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffloom.condition import Condition
from diffloom.conditioner import Batch
from diffloom.data import Dataset, Sample
from diffloom.errors import CheckpointError, DataError, IncompatibleParts
from diffloom.space import Space
from diffloom_ldm.conditioners.clip_text import ClipText, small_clip, transformers
from diffloom_ldm.conditioners.encoder import Layer, TokenEncoder
from diffloom_ldm.conditioners.text import Text
from diffloom_ldm.conditioners.vocabulary import END, PAD, SMALLEST, START, Vocabulary, learned_merges
from tests.ldm.conditioners.parts import denoiser

CAPTIONS = ["a burnt forest beside a road", "a flooded road", "a burnt house beside a river", "A river, flooded"] * 3


class Captioned(Dataset):
    """Captions without images to speak of."""

    space = Space(1, (8, 8))
    keys = ("image", "caption")

    def __init__(self, captions: list[str]) -> None:
        self.captions = captions

    def __len__(self) -> int:
        return len(self.captions)

    def read(self, index: int) -> Sample:
        return {"image": torch.zeros(1, 8, 8), "caption": self.captions[index]}


def text(captions: list[str] | None = None, **changes: Any) -> Text:
    small = {"vocabulary": 290, "length": 12, "layers": 1, "heads": 2, "head_width": 4, **changes}
    torch.manual_seed(0)
    return Text(denoiser=denoiser(context=8), dataset=Captioned(captions or CAPTIONS), **small)


def context(said: Condition) -> Tensor:
    assert said.context is not None
    return said.context


# --- vocabulary ------------------------------------------------------------------------------------------------------

LEARNED = learned_merges(CAPTIONS, 320)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_every_text_can_be_written_and_read_back(words: str) -> None:
    numbers = Vocabulary(LEARNED)([words], 200)[0]
    plain = words.encode("utf-8", "replace").decode()
    assert Vocabulary(LEARNED).text(numbers.tolist()) == plain.lower() or words != plain


def test_a_row_is_start_text_end_and_padding() -> None:
    row = Vocabulary(LEARNED)(["a road", ""], 10)
    assert row.shape == (2, 10)
    assert row[0, 0] == START
    end = int((row[0] == END).nonzero()[0])
    assert row[0, end + 1 :].tolist() == [PAD] * (9 - end)
    assert row[1].tolist() == [START, END] + [PAD] * 8
    assert Vocabulary(LEARNED)(["road " * 50], 10)[0, -1] == END


def test_frequent_words_become_one_token() -> None:
    words = Vocabulary(learned_merges(CAPTIONS, 400))
    assert len([n for n in words([" flooded"], 20)[0].tolist() if n >= SMALLEST]) == 1
    assert not any(n >= SMALLEST for n in words(["xyzq"], 20)[0].tolist())


def test_a_merge_joins_two_tokens_that_were_there_before() -> None:
    for number, (left, right) in enumerate(LEARNED.tolist()):
        assert max(left, right) < SMALLEST + number
        assert (left == -1) == (right == -1)
    few = learned_merges(["ab ab ab"], 400)
    assert (few[:, 0] >= 0).sum() < 10
    assert few.shape == (141, 2)


# --- text ------------------------------------------------------------------------------------------------------------


def test_the_vocabulary_travels_with_the_weights() -> None:
    one, other = text(), text(["entirely different words, colourless green ideas"] * 4)
    said = context(one.encode({"caption": ["a flooded road"]}))
    assert not torch.allclose(context(other.encode({"caption": ["a flooded road"]})), said)
    other.load_state_dict(one.state_dict())
    assert torch.equal(context(other.encode({"caption": ["a flooded road"]})), said)
    third = text(["other words"])
    with torch.no_grad():
        for mine, theirs in zip(third.state_dict(keep_vars=True).values(), one.state_dict().values(), strict=True):
            mine.copy_(theirs)  # as a run gives a system its weights
    assert torch.equal(context(third.encode({"caption": ["a flooded road"]})), said)


def test_nothing_said_is_the_empty_caption() -> None:
    part = text()
    code = part.encode({"caption": ["a road", "a river"]})
    null = context(part.null(code))
    torch.testing.assert_close(null, context(part.encode({"caption": ["", ""]})))
    assert part.gives.context == 8
    assert context(code).shape == null.shape == (2, 12, 8)


def test_captions_reach_the_loss() -> None:
    part = text()
    value = context(part.encode({"caption": ["a road"]})).square().sum()
    reached = torch.autograd.grad(value, list(part.parameters()))
    assert all(bool(gradient.any()) for gradient in reached)


@pytest.mark.parametrize("captions", [[3], ["a road", None]])
def test_what_is_no_text_is_refused(captions: list[object], tmp_path: Path) -> None:
    small_clip(tmp_path, width=8)
    for part in (text(), ClipText(folder=str(tmp_path), denoiser=denoiser(context=8))):
        with pytest.raises(DataError, match="a caption is no text"):
            part.encode({"caption": captions})


def test_the_published_transformer_of_latent_diffusion_is_expressible() -> None:
    """581,994,042 with an output layer of 1280 · 30522 + 30522 that nothing uses."""
    with torch.device("meta"):
        part = Text(vocabulary=30522, layers=32, denoiser=denoiser(context=1280))
    assert sum(p.numel() for p in part.parameters()) == 542_895_360 == 581_994_042 - (1280 * 30522 + 30522)
    told: Batch = {"caption": ["a painting", "a photograph"]}
    assert context(part.encode(told)).shape == (2, 77, 1280)


def test_the_transformer_is_pre_norm_attention_and_feed_forward() -> None:
    """Against torch's own layer, which says the same with heads as wide as the width allows."""
    torch.manual_seed(1)
    ours = TokenEncoder(20, 6, 8, layers=2, heads=2, head_width=4).double().eval()
    theirs = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64),
        2,
        norm=torch.nn.LayerNorm(8, dtype=torch.float64),
        enable_nested_tensor=False,
    ).eval()
    with torch.no_grad():
        for one, other in zip(theirs.layers, ours.layers, strict=True):
            assert isinstance(other, Layer)
            one.self_attn.in_proj_weight.copy_(other.qkv.weight)
            one.self_attn.in_proj_bias.zero_()
            for mine, its in (
                (one.self_attn.out_proj, other.proj),
                (one.linear1, other.widen),
                (one.linear2, other.narrow),
                (one.norm1, other.norm),
                (one.norm2, other.feed_norm),
            ):
                mine.load_state_dict(its.state_dict())
    numbers = torch.randint(0, 20, (3, 5))
    expected = theirs(ours.table(numbers) + ours.positions[:5])
    torch.testing.assert_close(ours(numbers), expected)


# --- CLIP ------------------------------------------------------------------------------------------------------------


def test_clip_s_hidden_state_is_that_of_transformers(tmp_path: Path) -> None:
    small_clip(tmp_path, width=8, layers=2)
    part = ClipText(folder=str(tmp_path), denoiser=denoiser(context=8)).eval()
    library = transformers()
    network = library.CLIPTextModel.from_pretrained(str(tmp_path)).eval()
    words = library.CLIPTokenizer.from_pretrained(str(tmp_path))
    numbers = words(["ab c", ""], padding="max_length", max_length=12, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        said, expected = part.encode({"caption": ["ab c", ""]}), network(numbers).last_hidden_state
    torch.testing.assert_close(context(said), expected)
    torch.testing.assert_close(context(part.null(said))[:1], expected[1:])


def test_clip_s_weights_are_read_in_older_layouts_too(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    small_clip(tmp_path, width=8)
    part = ClipText(folder=str(tmp_path), denoiser=denoiser(context=8))
    file = tmp_path / "model.safetensors"
    plain = {name.removeprefix("text_model."): value for name, value in load_file(file).items()}
    old = {f"text_model.{name}": value for name, value in plain.items()}
    save_file(old | {"text_model.embeddings.position_ids": torch.arange(12)[None]}, file)
    again = ClipText(folder=str(tmp_path), denoiser=denoiser(context=8))
    for one, other in zip(part.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    single = next(layout for layout in part.layouts() if layout.name == "ldm")
    stored = {f"cond_stage_model.transformer.{name}": value for name, value in old.items()}
    read = single.read(stored | {"first_stage_model.x": torch.zeros(1)})
    assert all(torch.equal(read[name], value) for name, value in part.state_dict().items())


def test_clip_is_built_without_memory(tmp_path: Path) -> None:
    """Stable Diffusion 1.x's text network, 123,060,480 parameters, of its published configuration alone."""
    small_clip(tmp_path, width=8)
    (tmp_path / "model.safetensors").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    config |= sizes | {"vocab_size": 49408, "max_position_embeddings": 77}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        part = ClipText(folder=str(tmp_path), denoiser=denoiser(context=768))
    assert sum(p.numel() for p in part.parameters()) == 123_060_480
    with pytest.raises(CheckpointError):
        ClipText(folder=str(tmp_path), denoiser=denoiser(context=768))


def test_a_clip_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    small_clip(tmp_path, width=8)
    with pytest.raises(IncompatibleParts, match="width 6, got 8"):
        ClipText(folder=str(tmp_path), denoiser=denoiser(context=6))
    for file in ("vocab.json", "merges.txt"):
        (tmp_path / file).unlink()
    with pytest.raises(DataError, match="no tokenizer"):
        ClipText(folder=str(tmp_path), denoiser=denoiser(context=8))
