"""How diffusers and latent diffusion's own code store these autoencoders.

Ours and theirs differ in names alone, but for attention: our one product for Q, K and V is three linear layers in
diffusers and three 1×1 convolutions in latent diffusion, whose decoder also counts its levels from the finest.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from diffloom.layout import Layout, Weld
from diffloom_ldm.autoencoders.coder import Architecture, Decoder, Encoder, Stage
from diffloom_nets import Conv2d, group_count

_OLD_NAMES = (
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.proj_attn\.", ".to_out.0."),
)
_OTHERS = (r"^loss\.", r"^model_ema\.", r"^quantize\.(cluster_size|embed_avg)")
_TENSORS = ("weight", "bias")


class Coded(Protocol):
    """An autoencoder of this family."""

    plan: Architecture
    encoder: Encoder
    decoder: Decoder
    quant: Conv2d

    def constants(self) -> Mapping[str, Tensor]:
        """Return the tensors that foreign files lack."""


def coder_layouts(
    part: Coded, name: str, extra: Sequence[Weld] = (), config: Mapping[str, Any] | None = None
) -> list[Layout]:
    """Return the layouts of an autoencoder: diffusers', and latent diffusion's as a part of a file or as a whole one.

    Args:
        part: The autoencoder.
        name: Its class in diffusers.
        extra: Tensors besides both ways and the convolutions at the latents.
        config: What diffusers' configuration says besides the architecture.
    """
    theirs = (*_diffusers(part), *extra)
    own = (*_compvis(part), *extra)
    constants = part.constants()
    layouts = [
        Layout("ldm", own, prefix=prefix, ignored=_OTHERS, constants=constants) for prefix in ("first_stage_model.", "")
    ]
    if part.plan.uniform_groups():
        written = {"_class_name": name, **_config(part), **(config or {})}
        layouts.insert(0, Layout("diffusers", theirs, aliases=_OLD_NAMES, constants=constants, config=written))
    return layouts


def _diffusers(part: Coded) -> Iterator[Weld]:
    yield from _ends(part, ("conv_in", "conv_norm_out", "conv_out"))
    for way, steps, blocks, moves in (
        ("encoder", part.encoder.down, "down_blocks", "downsamplers.0.conv"),
        ("decoder", part.decoder.up, "up_blocks", "upsamplers.0.conv"),
    ):
        ours = f"{way}.{'down' if way == 'encoder' else 'up'}"
        for index, level, place, step in _walk(steps):
            there = f"{way}.{blocks}.{level}"
            if place is None:
                yield from _same(f"{ours}.{index}.conv", f"{there}.{moves}")
            else:
                yield from _block(f"{ours}.{index}", f"{there}.resnets.{place}", step, "conv_shortcut")
                yield from _linear_attention(f"{ours}.{index}", f"{there}.attentions.{place}", step)
    for way, middle in (("encoder", part.encoder.middle), ("decoder", part.decoder.middle)):
        for place, step in enumerate(middle):
            there = f"{way}.mid_block"
            yield from _block(f"{way}.middle.{place}", f"{there}.resnets.{place}", step, "conv_shortcut")
            yield from _linear_attention(f"{way}.middle.{place}", f"{there}.attentions.0", step)


def _compvis(part: Coded) -> Iterator[Weld]:
    yield from _ends(part, ("conv_in", "norm_out", "conv_out"))
    deepest = len(part.plan.widths) - 1
    for way, steps in (("encoder", part.encoder.down), ("decoder", part.decoder.up)):
        direction = "down" if way == "encoder" else "up"
        for index, level, place, step in _walk(steps):
            there = f"{way}.{direction}.{level if direction == 'down' else deepest - level}"
            if place is None:
                yield from _same(f"{way}.{direction}.{index}.conv", f"{there}.{direction}sample.conv")
            else:
                yield from _block(f"{way}.{direction}.{index}", f"{there}.block.{place}", step, "nin_shortcut")
                yield from _convolved_attention(f"{way}.{direction}.{index}", f"{there}.attn.{place}", step)
    for way, middle in (("encoder", part.encoder.middle), ("decoder", part.decoder.middle)):
        for place, step in enumerate(middle):
            yield from _block(f"{way}.middle.{place}", f"{way}.mid.block_{place + 1}", step, "nin_shortcut")
            yield from _convolved_attention(f"{way}.middle.{place}", f"{way}.mid.attn_1", step)


def _ends(part: Coded, names: tuple[str, str, str]) -> Iterator[Weld]:
    for way in ("encoder", "decoder"):
        for ours, theirs in zip(("stem", "norm", "head"), names, strict=True):
            yield from _same(f"{way}.{ours}", f"{way}.{theirs}")
    yield from _same("quant", "quant_conv")
    yield from _same("unquant", "post_quant_conv")


def _walk(steps: nn.ModuleList) -> Iterator[tuple[int, int, int | None, Any]]:
    """Yield (index, level, place within the level, step); the place is `None` for what leads to the next level."""
    level = place = 0
    for index, step in enumerate(steps):
        if isinstance(step, Stage):
            yield index, level, place, step
            place += 1
        else:
            yield index, level, None, step
            level, place = level + 1, 0


def _same(ours: str, theirs: str) -> Iterator[Weld]:
    for tensor in _TENSORS:
        yield Weld(f"{ours}.{tensor}", (f"{theirs}.{tensor}",))


def _block(ours: str, theirs: str, step: Any, shortcut: str) -> Iterator[Weld]:
    for layer in ("norm1", "conv1", "norm2", "conv2"):
        yield from _same(f"{ours}.block.{layer}", f"{theirs}.{layer}")
    if step.block.skip is not None:
        yield from _same(f"{ours}.block.skip", f"{theirs}.{shortcut}")


def _linear_attention(ours: str, theirs: str, step: Any) -> Iterator[Weld]:
    if step.attention is not None:
        yield from _same(f"{ours}.attention.norm", f"{theirs}.group_norm")
        names = [f"{theirs}.to_{letter}" for letter in "qkv"]
        yield from _attention(f"{ours}.attention", names, f"{theirs}.to_out.0", dims=2)


def _convolved_attention(ours: str, theirs: str, step: Any) -> Iterator[Weld]:
    if step.attention is not None:
        yield from _same(f"{ours}.attention.norm", f"{theirs}.norm")
        yield from _attention(f"{ours}.attention", [f"{theirs}.{letter}" for letter in "qkv"], f"{theirs}.proj_out")


def _attention(ours: str, qkv: Sequence[str], out: str, dims: int | None = None) -> Iterator[Weld]:
    for tensor, count in (("weight", dims), ("bias", None)):
        yield Weld(f"{ours}.qkv.{tensor}", tuple(f"{name}.{tensor}" for name in qkv), dims=count)
        yield Weld(f"{ours}.proj.{tensor}", (f"{out}.{tensor}",), dims=count)


def _config(part: Coded) -> dict[str, Any]:
    """Return diffusers' description of the architecture."""
    plan = part.plan
    attended = [(1 << level) in plan.attention for level in range(len(plan.widths))]
    config: dict[str, Any] = {
        "in_channels": part.encoder.stem.in_channels,
        "out_channels": part.decoder.head.out_channels,
        "block_out_channels": list(plan.widths),
        "layers_per_block": plan.blocks,
        "latent_channels": part.decoder.stem.in_channels,
        "norm_num_groups": group_count(plan.widths[0], plan.groups),
        "mid_block_add_attention": plan.middle,
        "act_fn": "silu",
        "down_block_types": [f"{'Attn' * a}DownEncoderBlock2D" for a in attended],
        "up_block_types": [f"{'Attn' * a}UpDecoderBlock2D" for a in reversed(attended)],
    }
    scales, shifts = (part.constants()[key].flatten().tolist() for key in ("scale", "shift"))
    if len(set(scales)) == 1 and not any(shifts):
        return config | {"scaling_factor": scales[0]}
    return config | {"latents_mean": shifts, "latents_std": [1 / scale for scale in scales]}
