"""The released files' names: a network written down from them alone answers as ours does, at the published size too."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from diffloom import Space
from diffloom.condition import Condition
from diffloom.recipe.weights import fit
from diffloom_ddpm.identity import Identity
from diffloom_stablesr.time_aware import TimeAwareSFT
from diffloom_unet import UNet

State = dict[str, Tensor]

ENCODER, NETWORK = "structcond_stage_model", "model.diffusion_model"


class Four(Identity):
    """Pixels of four bands as latents."""

    latent_channels = 4


def conditioner(network: dict[str, Any], side: int, **more: Any) -> TimeAwareSFT:
    space = Space(4, (side, side))
    net = UNet(space=space, embedding="adm", padding="symmetric", eps=1e-5, vector=0, **network)
    return TimeAwareSFT(denoiser=net, autoencoder=Four(space=space), groups=32, **more)


def small() -> TimeAwareSFT:
    torch.manual_seed(0)
    part = conditioner(
        {"channels": 64, "multipliers": (1, 2), "blocks": 2}, 16, scale=1,
        channels=64, multipliers=(1, 2), blocks=2, attention=(1, 2), heads=4, width=64, hidden=8,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return part.eval()


def _conv(state: State, name: str, h: Tensor, **how: int) -> Tensor:
    return functional.conv2d(h, state[f"{name}.weight"], state[f"{name}.bias"], **how)


def _norm(state: State, name: str, h: Tensor) -> Tensor:
    return functional.group_norm(h, 32, state[f"{name}.weight"], state[f"{name}.bias"])


def _block(state: State, name: str, h: Tensor, time: Tensor) -> Tensor:
    inner = _conv(state, f"{name}.in_layers.2", functional.silu(_norm(state, f"{name}.in_layers.0", h)), padding=1)
    told = functional.linear(
        functional.silu(time), state[f"{name}.emb_layers.1.weight"], state[f"{name}.emb_layers.1.bias"]
    )
    inner = functional.silu(_norm(state, f"{name}.out_layers.0", inner + told[:, :, None, None]))
    skip = _conv(state, f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in state else h
    return skip + _conv(state, f"{name}.out_layers.3", inner, padding=1)


def _attention(state: State, name: str, h: Tensor, heads: int) -> Tensor:
    flat = _norm(state, f"{name}.norm", h).flatten(2)
    qkv = functional.conv1d(flat, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"])
    q, k, v = qkv.reshape(len(h) * heads, -1, flat.shape[2]).chunk(3, 1)  # head by head, each with its q, k and v
    share = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), -1)
    found = (v @ share.transpose(1, 2)).reshape(flat.shape)
    return h + functional.conv1d(found, state[f"{name}.proj_out.weight"], state[f"{name}.proj_out.bias"]).view_as(h)


def theirs(state: State, z: Tensor, t: Tensor, *, levels: int, blocks: int, heads: int) -> list[Tensor]:
    """Return the features of every level, from the released names alone."""
    own = {key.removeprefix(f"{ENCODER}."): value for key, value in state.items() if key.startswith(ENCODER)}
    half = own["time_embed.0.weight"].shape[1] // 2
    angle = t[:, None] * torch.exp(torch.arange(half) * (-math.log(10000) / half))
    time = functional.linear(
        torch.cat([angle.cos(), angle.sin()], 1), own["time_embed.0.weight"], own["time_embed.0.bias"]
    )
    time = functional.linear(functional.silu(time), own["time_embed.2.weight"], own["time_embed.2.bias"])
    h, number, maps = _conv(own, "input_blocks.0.0", z, padding=1), 1, []
    for level in range(levels):
        for _ in range(blocks):
            h = _block(own, f"input_blocks.{number}.0", h, time)
            h = _attention(own, f"input_blocks.{number}.1", h, heads)
            number += 1
        if level + 1 < levels:
            maps.append(h)
            h = _conv(own, f"input_blocks.{number}.0.op", h, stride=2, padding=1)
            number += 1
    h = _attention(own, "middle_block.1", _block(own, "middle_block.0", h, time), heads)
    maps.append(_block(own, "middle_block.2", h, time))
    return [_block(own, f"fea_tran.{index}", m, time) for index, m in enumerate(maps)]


def _spade(state: State, place: str, h: Tensor, features: Tensor) -> Tensor:
    name = f"{NETWORK}.{place}.spade"
    inner = functional.relu(_conv(state, f"{name}.mlp_shared.0", features, padding=1))
    gamma, beta = (_conv(state, f"{name}.mlp_{which}", inner, padding=1) for which in ("gamma", "beta"))
    return _norm(state, f"{name}.param_free_norm", h) * (1 + gamma) + beta


@torch.no_grad()
def test_a_network_written_from_their_names_answers_as_ours() -> None:
    part = small()
    (layout,) = part.layouts()
    state = layout.write(part.state_dict())
    z, t = torch.randn(2, 4, 16, 16), torch.tensor([3.0, 700.0])
    wanted = theirs(state, z, t, levels=2, blocks=2, heads=4)
    made = part.encoder(z, t)
    for stride, features in zip((1, 2), wanted, strict=True):
        torch.testing.assert_close(made[stride], features, atol=1e-3, rtol=1e-3)
    edits = part(z, z, t, Condition()).affine
    places = {  # taps of a U-Net of two levels with two blocks each, and where latent diffusion's code has them
        "res.down.1": ("input_blocks.2.0", 0), "res.down.2": ("input_blocks.4.0", 1),
        "res.mid.1": ("middle_block.2", 1), "res.up.0": ("output_blocks.0.0", 1), "res.up.5": ("output_blocks.5.0", 0),
    }  # fmt: skip
    for tap, (place, level) in places.items():
        edit = edits[tap]
        assert edit.scale is not None
        h = torch.randn(2, edit.scale.shape[1], *wanted[level].shape[2:])
        torch.testing.assert_close(edit(h), _spade(state, place, h, wanted[level]), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_their_file_is_read_past_the_other_models_in_it() -> None:
    part = small()
    state = part.state_dict()
    file = part.layouts()[0].write(state)
    file |= {f"{NETWORK}.input_blocks.1.0.in_layers.0.weight": torch.ones(64), "first_stage_model.x": torch.ones(1)}
    fitted = fit(part, {key: tuple(value.shape) for key, value in file.items()}, "the file")(file)
    assert all(torch.equal(fitted[key], value) for key, value in state.items())


def test_the_published_size_has_their_places() -> None:
    with torch.device("meta"):
        part = conditioner(
            {"channels": 320, "multipliers": (1, 2, 4, 4), "attention": (64, 32, 16), "head_width": 64}, 64
        )
        shapes = {key: tuple(v.shape) for key, v in part.layouts()[0].write(part.state_dict()).items()}
    places = {key.partition(".spade.")[0] for key in shapes if ".spade." in key}
    assert len(places) == 22
    assert {f"{NETWORK}.{p}" for p in ("input_blocks.11.0", "middle_block.2", "output_blocks.11.0")} <= places
    assert shapes[f"{NETWORK}.input_blocks.11.0.spade.mlp_gamma.weight"] == (1280, 128, 3, 3)
    assert shapes[f"{ENCODER}.input_blocks.9.0.op.weight"] == (512, 512, 3, 3)
    assert shapes[f"{ENCODER}.fea_tran.3.in_layers.2.weight"] == (256, 512, 3, 3)
    assert f"{ENCODER}.input_blocks.11.1.qkv.weight" not in shapes  # no attention at the coarsest level


def test_without_the_normalisation_there_is_no_such_layout() -> None:
    part = small()
    part.groups = 0
    assert not part.layouts()
