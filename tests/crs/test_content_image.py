"""Content images: published size and tokens, what strength and absence mean, and where embeddings come from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diffloom.condition import Condition
from diffloom.errors import CheckpointError, DataError, IncompatibleParts
from diffloom.vision_compat import ensure_torchvision
from diffloom_crs.content_image import ContentImage, small_clip_vision
from diffloom_nets import CrossAttention
from tests.ldm.conditioners.parts import denoiser

TEXT = Condition(context=torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)))


def small(**changes: Any) -> ContentImage:
    torch.manual_seed(0)
    given: dict[str, Any] = {"width": 6, "denoiser": denoiser(context=8), **changes}
    part = ContentImage(**given).eval()
    with torch.no_grad():
        for parameter in part.parameters():  # the release's layers have biases, which ours begin without
            parameter.add_(0.1 * torch.randn_like(parameter))
    return part


def given(seed: int = 2, width: int = 6) -> dict[str, Tensor]:
    return {"content": torch.randn(2, width, generator=torch.Generator().manual_seed(seed))}


def tokens(said: Condition) -> Tensor:
    assert said.context is not None
    return said.context


def test_the_published_number_of_parameters_and_tokens() -> None:
    with torch.device("meta"):
        part = ContentImage(denoiser=denoiser(context=768))
        told = part.encode({"content": torch.empty(2, 768)})
    assert sum(p.numel() for p in part.parameters()) == 47_213_568
    assert tokens(Condition(context=torch.empty(2, 77, 768, device="meta")) | told).shape == (2, 81, 768)


def test_the_adapter_is_two_normalised_gated_layers() -> None:
    part, embedding = small(), given()["content"]
    state = part.state_dict()
    x = embedding
    for n in (1, 2):
        x = functional.layer_norm(x, x.shape[1:], state[f"adapter.norm{n}.weight"], state[f"adapter.norm{n}.bias"])
        wide = x @ state[f"adapter.feed{n}.expand.weight"].T + state[f"adapter.feed{n}.expand.bias"]
        inner = wide[:, : wide.shape[1] // 2] * functional.gelu(wide[:, wide.shape[1] // 2 :])
        x = inner @ state[f"adapter.feed{n}.contract.weight"].T + state[f"adapter.feed{n}.contract.bias"]
    torch.testing.assert_close(tokens(part.encode(given())), x.view(2, 4, 8))


def test_tokens_follow_those_before_and_scale_with_the_strength() -> None:
    one, half = tokens(TEXT | small().encode(given())), tokens(TEXT | small(strength=0.5).encode(given()))
    assert one.shape == (2, 9, 8)
    assert torch.equal(one[:, :5], tokens(TEXT))
    assert torch.equal(half[:, :5], tokens(TEXT))
    torch.testing.assert_close(half[:, 5:], 0.5 * one[:, 5:])


def looked(said: Condition) -> Tensor:
    """Return what a cross-attention finds in a context."""
    torch.manual_seed(3)
    layer = CrossAttention(8, 8, heads=2)
    found: Tensor = layer(torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(4)), said)
    return found


def test_strength_0_still_takes_part_in_attention_unless_it_is_masked() -> None:
    plain = looked(TEXT)
    assert not torch.allclose(looked(TEXT | small(strength=0.0).encode(given())), plain, atol=1e-3)
    torch.testing.assert_close(looked(TEXT | small(strength=0.0, masked=True).encode(given())), plain)


def test_an_absent_image_is_four_constant_tokens_unless_it_is_masked() -> None:
    part = small()
    absent = part.encode({"item": torch.arange(2)})
    assert torch.equal(tokens(absent), tokens(part.null(part.encode(given()))))
    torch.testing.assert_close(tokens(absent)[0], tokens(absent)[1])
    assert tokens(absent).abs().sum() > 0
    assert not torch.allclose(looked(TEXT | absent), looked(TEXT), atol=1e-3)
    part = small(masked=True)
    torch.testing.assert_close(looked(TEXT | part.null(part.encode(given()))), looked(TEXT))
    torch.testing.assert_close(looked(TEXT | part.encode({"item": torch.arange(2)})), looked(TEXT))
    assert not torch.allclose(looked(TEXT | part.encode(given())), looked(TEXT), atol=1e-3)


def test_released_files_are_read() -> None:
    part = small()
    for layout, key in zip(part.layouts(), ("global_content_adapter", "global_adapter"), strict=True):
        stored = layout.write(part.state_dict())
        assert stored[f"{key}.ff2.net.0.proj.weight"].shape == (96, 12)
        assert all(torch.equal(value, part.state_dict()[name]) for name, value in layout.read(stored).items())


def test_clips_vision_network_makes_the_embedding(tmp_path: Path) -> None:
    small_clip_vision(tmp_path, width=6)
    ensure_torchvision()
    from transformers import CLIPVisionModelWithProjection

    theirs = CLIPVisionModelWithProjection.from_pretrained(str(tmp_path)).eval()
    part = small(folder=str(tmp_path), width=None)
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        wanted = theirs(pixel_values=((image + 1) / 2 - mean) / deviation).image_embeds
    torch.testing.assert_close(part.encode({"content": image}).context, part.encode({"content": wanted}).context)
    assert set(part.state_dict()) == set(small().state_dict()), "the network is saved with the conditioner"
    assert part.weight_files == (tmp_path / "model.safetensors",)


def test_a_folder_of_clip_as_a_whole_does_as_well(tmp_path: Path) -> None:
    ensure_torchvision()
    from transformers import CLIPConfig, CLIPModel

    vision = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**vision, "vocab_size": 20, "max_position_embeddings": 7}
    config = CLIPConfig(text_config=text, vision_config={**vision, "image_size": 16, "patch_size": 8}, projection_dim=6)
    torch.manual_seed(0)
    whole = CLIPModel(config).eval()
    whole.save_pretrained(str(tmp_path))
    part = small(folder=str(tmp_path), width=None)
    encoder = part._encoder
    assert encoder is not None
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        state = whole.vision_model(pixels).pooler_output
        torch.testing.assert_close(encoder.embed(pixels), whole.visual_projection(state))


def test_a_network_of_timm_makes_the_embedding(tmp_path: Path) -> None:
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    part = small(network="test_resnet", file=str(tmp_path / "weights.pt"), width=None)
    side = theirs.pretrained_cfg["input_size"][-1]
    image = torch.rand(2, 3, side, side) * 2 - 1
    mean, deviation = (torch.tensor(theirs.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    theirs.reset_classifier(0)
    with torch.no_grad():
        wanted = theirs(((image + 1) / 2 - mean) / deviation)
    torch.testing.assert_close(part.encode({"content": image}).context, part.encode({"content": wanted}).context)
    with torch.device("meta"):
        shapes = small(network="test_resnet", file=str(tmp_path / "weights.pt"), width=None)
        assert tokens(shapes.encode({"content": torch.empty(2, 3, 8, 8)})).shape == (2, 4, 8)


def test_the_network_is_neither_trained_nor_left_behind(tmp_path: Path) -> None:
    small_clip_vision(tmp_path, width=6)
    part = small(folder=str(tmp_path), width=None)
    encoder = part._encoder
    assert encoder is not None
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert {name.split(".")[0] for name, _ in part.named_parameters()} == {"adapter"}
    part.double()
    assert next(encoder.model.parameters()).dtype == torch.float64


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"denoiser": denoiser(vector=8)}, IncompatibleParts, "no context port"),
        ({"network": "test_resnet"}, IncompatibleParts, "one network, with its weights"),
        ({"network": "test_resnet", "file": "nowhere.safetensors"}, CheckpointError, "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(**changes)


def test_an_embedding_of_another_width_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected \(B, 6\), got \(2, 5\)"):
        small().encode(given(width=5))
    with pytest.raises(DataError, match="not the embedding"):
        small().encode({"content": torch.zeros(2, 3, 8, 8)})
