"""The names of other libraries: complete, invertible, and what their own converter makes of them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from diffloom.condition import Condition
from diffloom.space import Space
from diffloom.vision_compat import ensure_torchvision
from diffloom_nets import SelfAttention
from diffloom_unet import UNet
from tests.unet.parity import LATENT, SD1, SD2, layout_of, pair, scramble, twin
from tests.unet.test_diffusers import PLAIN, SMALL, TOLD

NETWORKS = {**PLAIN, **TOLD, "two heads": {**LATENT, **SMALL, "heads": 2}}


def network(**config: Any) -> UNet:
    return scramble(UNet(space=Space(4, (16, 16)), **config)).eval()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[key].shape == b[key].shape and torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_what_is_written_is_read_again(name: str) -> None:
    net = network(**{**NETWORKS[name], "attention": NETWORKS[name].get("attention", ())})
    state, layouts = net.state_dict(), net.layouts()
    assert {layout.name.partition("-")[0] for layout in layouts} == (
        {"diffusers"} if "vector" in NETWORKS[name] and NETWORKS[name]["vector"] else {"diffusers", "ldm"}
    ) - ({"diffusers"} if name == "two heads" else set())
    for layout in layouts:
        assert sorted(weld.ours for weld in layout.welds) == sorted(state)
        foreign = layout.write(state)
        assert equal(layout.read(foreign), state)
        assert sum(value.numel() for value in foreign.values()) == sum(value.numel() for value in state.values())


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("config", [SD1, SD2], ids=["sd1", "sd2"])
def test_stable_diffusion_has_diffusers_keys_and_shapes(config: dict[str, Any], linear: bool) -> None:
    with torch.device("meta"):
        ours = UNet(space=Space(4, (64, 64)), **config)
        layout = layout_of(ours, "diffusers-linear" if linear else "diffusers")
        theirs = twin(layout)
    written = layout.write(ours.state_dict())
    assert {key: value.shape for key, value in written.items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }
    assert len(written) == 686
    assert written["down_blocks.1.attentions.0.proj_in.weight"].dim() == (2 if linear else 4)
    assert written["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape == (
        320,
        config["context"],
    )
    assert [written[f"up_blocks.{i}.resnets.{j}.conv1.weight"].shape[1] for i in range(4) for j in range(3)] == [
        *(2560, 2560, 2560),
        *(2560, 2560, 1920),
        *(1920, 1280, 960),
        *(960, 640, 640),
    ]
    heads = [8, 8, 8, 8] if config is SD1 else [5, 10, 20, 20]
    assert theirs.config.attention_head_dim == heads


@pytest.mark.parametrize("library", ["diffusers", "ldm"])
def test_the_first_layout_reads_linear_projections_too(library: str) -> None:
    net = network(**TOLD["heads by width"])
    state = net.state_dict()
    assert equal(layout_of(net, library).read(layout_of(net, f"{library}-linear").write(state)), state)


@pytest.mark.parametrize("name", ["heads by count", "heads by width", "deep", "attention in the middle only"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_diffusers_converter_makes_the_same_of_latent_diffusion_s_names(name: str, blocks: int) -> None:
    ensure_torchvision()
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    net = network(**{**TOLD[name], "blocks": blocks})
    ours = layout_of(net)
    converted = convert_ldm_unet_checkpoint(layout_of(net, "ldm").write(net.state_dict()), dict(ours.config))
    assert equal(converted, ours.write(net.state_dict()))


def test_residual_blocks_that_resample_have_latent_diffusion_s_places() -> None:
    net = network(**{**LATENT, **SMALL, "multipliers": (1, 2, 2), "attention": (8,), "resampling": "residual"})
    keys = {key.removeprefix("model.diffusion_model.") for key in layout_of(net, "ldm").write(net.state_dict())}
    halving, doubling = {"input_blocks.2.0", "input_blocks.4.0"}, {"output_blocks.1.1", "output_blocks.3.2"}
    blocks = {key.removesuffix(".in_layers.2.weight") for key in keys if key.endswith(".in_layers.2.weight")}
    stages = {f"input_blocks.{i}.0" for i in (1, 3, 5)} | {f"output_blocks.{i}.0" for i in range(6)}
    assert blocks == halving | doubling | stages | {"middle_block.0", "middle_block.2"}
    attentions = {key.removesuffix(".qkv.weight") for key in keys if key.endswith(".qkv.weight")}
    assert attentions == {"input_blocks.3.1", "middle_block.1", "output_blocks.2.1", "output_blocks.3.1"}
    assert not any(".op." in key or ".conv." in key for key in keys)


def test_plain_attention_is_latent_diffusion_s_head_by_head() -> None:
    """Their attention splits the rows of qkv into heads first: softmax(QKᵀ/√d) V of each head's own 3d rows."""
    net = network(**NETWORKS["two heads"])
    (attention,) = (net.middle[0].attention,)
    assert isinstance(attention, SelfAttention)
    foreign = layout_of(net, "ldm").write(net.state_dict())
    weight, bias = (foreign[f"model.diffusion_model.middle_block.1.qkv.{name}"] for name in ("weight", "bias"))
    h = torch.randn(1, 64, 2, 2)
    x = attention.norm(h).flatten(2)[0]
    rows = weight[:, :, 0] @ x + bias[:, None]
    found = []
    for head in rows.chunk(2):
        q, k, v = head.chunk(3)
        found.append(v @ torch.softmax(q.T @ k / 32**0.5, -1).T)
    expected = h + attention.proj(torch.cat(found)[None, :, :, None]).view(1, 64, 2, 2)
    assert torch.allclose(attention(h), expected, atol=1e-5)


def test_old_spellings_of_attention_are_read() -> None:
    net = network(**PLAIN["ddpm"])
    layout = layout_of(net)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = layout.write(net.state_dict())
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
    assert any(".proj_attn." in key for key in state)
    assert equal(layout.read(state), net.state_dict())


@pytest.mark.parametrize(
    "config",
    [
        {"vector": 20},  # UNet2DModel has no projection of a vector
        {"channels": 24, "groups": 32},  # normalisations of different numbers of groups
        {"multipliers": (2, 4)},  # a stem that is narrower than the first level
        {"heads": 2},  # heads of different widths
        {"context": 8, "resampling": "residual"},
    ],
)
def test_what_diffusers_cannot_express_has_no_layout_there(config: dict[str, Any]) -> None:
    names = [layout.name for layout in network(**{**LATENT, **SMALL, **config}).layouts()]
    assert not any(name.startswith("diffusers") for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("config", [SD1, SD2], ids=["sd1", "sd2"])
def test_stable_diffusion_in_full_size_equals_diffusers(config: dict[str, Any]) -> None:
    ours, theirs = pair(64, 4, **config)
    x, context = torch.randn(1, 4, 64, 64), torch.randn(1, 77, config["context"])
    with torch.inference_mode():
        expected = theirs(x, 500, context).sample
        answer = ours(x, torch.tensor(500), ours.prepare(Condition(context=context)))
    assert expected.std() > 0.1
    assert (answer - expected).abs().max() < 1e-4 * expected.abs().max()
