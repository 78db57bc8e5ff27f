"""Equal weights give equal outputs, here and in diffusers; and parameter totals are the papers'."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from diffloom.autoencoder import Autoencoder
from diffloom.errors import CheckpointError
from diffloom.space import Space
from diffloom_ldm.autoencoders.kl import KL
from diffloom_ldm.autoencoders.tiny import Tiny
from diffloom_ldm.autoencoders.vae import VAE
from diffloom_ldm.autoencoders.vq import VQ
from tests.ldm.autoencoders.parity import apart, layout, scramble, twin

SMALL: dict[str, Any] = {"channels": 16, "groups": 8}

TOTALS: tuple[tuple[type[Any], int, dict[str, Any]], ...] = (
    (KL, 55_312_063, {"multipliers": (1, 2, 4), "latent": 3}),
    (KL, 83_653_863, {}),
    (KL, 69_610_963, {"multipliers": (1, 1, 2, 2, 4), "latent": 16, "attention": (16,)}),
    (KL, 103_880_131, {"multipliers": (1, 1, 2, 2, 4, 4), "latent": 64, "attention": (16, 32)}),
    (VQ, 55_322_782, {}),
    (VQ, 53_219_486, {"middle": False}),
    (VQ, 67_717_295, {"multipliers": (1, 2, 2, 4), "latent": 4, "codes": 16384, "attention": (8,)}),
    (VQ, 67_652_783, {"multipliers": (1, 2, 2, 4), "latent": 4, "codes": 256, "attention": (8,)}),
    (VQ, 69_593_371, {"multipliers": (1, 1, 2, 2, 4), "latent": 8, "codes": 16384, "attention": (16,)}),
)


@pytest.mark.parametrize(("kind", "total", "config"), TOTALS)
def test_the_papers_autoencoders_have_their_numbers_of_parameters(
    kind: type[Any], total: int, config: dict[str, Any]
) -> None:
    with torch.device("meta"):
        part = kind(space=Space(3, (256, 256)), **config)
    assert sum(p.numel() for p in part.parameters()) == total


def test_stable_diffusions_halves_have_their_numbers_of_parameters() -> None:
    with torch.device("meta"):
        part = KL(space=Space(3, (512, 512)))
    assert sum(p.numel() for p in part.encoder.parameters()) == 34_163_592
    assert sum(p.numel() for p in part.decoder.parameters()) == 49_490_179
    assert len(layout(part, "diffusers").write(part.state_dict())) == 248
    assert part.stride == 8


def test_the_reference_vae_has_its_numbers_of_parameters() -> None:
    part = VAE(space=Space(1, (28, 28)))
    assert sum(p.numel() for p in part.encoder.parameters()) == 846_728
    assert sum(p.numel() for p in part.decoder.parameters()) == 844_641


PAIRS: tuple[tuple[type[Any], int, dict[str, Any]], ...] = (
    (KL, 3, {"multipliers": (1, 2, 2), "scale": 0.3, "shift": 0.1}),
    (KL, 5, {"multipliers": (1, 1, 2), "attention": (2, 4), "latent": 6, "blocks": 1}),
    (KL, 2, {"multipliers": (1, 2), "middle": False, "scale": (0.5, 2.0, 1.0, 0.1), "shift": (0.0, 1.0, -1.0, 0.5)}),
    (VQ, 3, {"multipliers": (1, 2, 2), "codes": 64}),
    (VQ, 1, {"multipliers": (1, 2), "codes": 64, "latent": 4, "embed": 3, "attention": (2,), "middle": False}),
    (Tiny, 3, {"blocks": (1, 2, 1)}),
    (Tiny, 4, {"blocks": (1, 1, 2, 1), "latent": 6}),
)


@pytest.mark.parametrize(("kind", "bands", "config"), PAIRS)
def test_outputs_are_those_of_diffusers(kind: type[Any], bands: int, config: Mapping[str, Any]) -> None:
    small = {"channels": 16} if kind is Tiny else SMALL
    ours = kind(space=Space(bands, (32, 48)), **small, **config).eval()
    scramble(ours)
    theirs = twin(ours)
    x = torch.randn(2, bands, 32, 48).clamp(-1, 1)
    with torch.inference_mode():
        made = theirs.encode(x)
        raw = made.latent_dist.mean if hasattr(made, "latent_dist") else made.latents
        code = ours.encode(x)
        assert apart(code.unscaled(ours.scale, ours.shift).mode(), raw) < 1e-5
        if kind is KL:
            assert apart(code.unscaled(ours.scale, ours.shift).logvar, made.latent_dist.logvar) < 1e-5
        assert apart(ours.decode(code.mode()), theirs.decode(raw).sample) < 1e-5


@pytest.mark.parametrize("name", ["diffusers", "ldm"])
@pytest.mark.parametrize(
    ("kind", "config"),
    [(KL, {"attention": (2,), "scale": 0.5}), (VQ, {"codes": 8, "restart": 5}), (Tiny, {})],
)
def test_layouts_cover_every_tensor_and_give_it_back(kind: type[Any], config: dict[str, Any], name: str) -> None:
    small = {"channels": 8, "blocks": (1, 1)} if kind is Tiny else {"channels": 8, "multipliers": (1, 2), "groups": 4}
    part: Autoencoder = kind(space=Space(3, (8, 8)), **small, **config)
    found = layout(part, "taesd" if kind is Tiny and name == "ldm" else name)
    again = found.read(found.write(part.state_dict()))
    assert again.keys() == part.state_dict().keys()
    assert all(torch.equal(again[key], value) for key, value in part.state_dict().items())


def test_compvis_names_are_those_of_its_code() -> None:
    part = KL(space=Space(3, (16, 16)), channels=8, multipliers=(1, 1, 2), attention=(2,), groups=4)
    found = layout(part, "ldm").write(part.state_dict())
    attention = found["first_stage_model.encoder.down.1.attn.0.q.weight"]
    assert attention.shape == (8, 8, 1, 1)
    for key in (
        "encoder.conv_in.weight",
        "encoder.down.2.block.0.nin_shortcut.weight",
        "encoder.down.0.downsample.conv.bias",
        "encoder.mid.attn_1.proj_out.weight",
        "encoder.norm_out.weight",
        "decoder.mid.block_2.conv2.weight",
        "decoder.up.2.upsample.conv.weight",
        "decoder.up.1.attn.2.norm.weight",
        "decoder.up.0.block.2.conv1.weight",
        "decoder.conv_out.weight",
        "quant_conv.weight",
        "post_quant_conv.bias",
    ):
        assert f"first_stage_model.{key}" in found
    assert "first_stage_model.decoder.up.0.upsample.conv.weight" not in found
    assert found["first_stage_model.decoder.up.2.block.0.conv1.weight"].shape[0] == 16  # the deepest level


def test_old_names_of_attention_are_read() -> None:
    part = KL(space=Space(3, (16, 16)), channels=8, multipliers=(1, 2), groups=4)
    scramble(part)
    found = layout(part, "diffusers")
    old = {}
    for key, value in found.write(part.state_dict()).items():
        for new, name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            key = key.replace(f".{new}.", f".{name}.")
        old[key] = value
    assert any("proj_attn" in key for key in old)
    again = found.read(old)
    assert all(torch.equal(again[key], value) for key, value in part.state_dict().items())


def test_a_wrong_key_is_named() -> None:
    part = KL(space=Space(3, (16, 16)), channels=8, multipliers=(1, 2), groups=4)
    found = layout(part, "diffusers")
    state = found.write(part.state_dict())
    state["encoder.extra.weight"] = state.pop("encoder.conv_in.weight")
    with pytest.raises(CheckpointError, match=r"encoder\.conv_in\.weight.*encoder\.extra\.weight"):
        found.read(state)


def test_latents_scaled_each_by_itself_are_told_to_diffusers() -> None:
    part = KL(
        space=Space(3, (8, 8)), channels=8, multipliers=(1, 2), groups=4, latent=2, scale=(0.5, 0.25), shift=(1.0, 2.0)
    )
    config = layout(part, "diffusers").config
    assert config["latents_mean"] == [1.0, 2.0]
    assert config["latents_std"] == [2.0, 4.0]
