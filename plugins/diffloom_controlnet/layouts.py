"""How diffusers and the original code store a ControlNet: the copy as the denoiser's layouts say, and what is added."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from diffloom.denoiser import Denoiser
from diffloom.layout import Layout, Weld
from diffloom_controlnet.hint import HintEncoder

_TENSORS = ("weight", "bias")
_KNOWN = (
    "in_channels",
    "flip_sin_to_cos",
    "freq_shift",
    "down_block_types",
    "mid_block_type",
    "block_out_channels",
    "layers_per_block",
    "downsample_padding",
    "act_fn",
    "norm_num_groups",
    "norm_eps",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "attention_head_dim",
    "use_linear_projection",
    "class_embed_type",
    "num_class_embeds",
    "resnet_time_scale_shift",
    "projection_class_embeddings_input_dim",
    "mid_block_scale_factor",
    "only_cross_attention",
    "num_attention_heads",
    "upcast_attention",
)


@dataclass(frozen=True)
class Names:
    """The names of what a ControlNet adds.

    Attributes:
        hint: Of the hint encoder's convolution i of n, in order.
        output: Of the zero convolution i of n, the last being the middle's.
    """

    hint: tuple[str, ...]
    output: tuple[str, ...]


def layouts(copy: Denoiser, hint: HintEncoder, outputs: int, channels: int, *, pool: bool) -> Iterator[Layout]:
    """Yield the layouts of a ControlNet.

    Args:
        copy: Of the denoiser; its layouts are extended.
        hint: Its hint encoder.
        outputs: How many zero convolutions there are.
        channels: Of the hint.
        pool: Whether shifts are averaged over their maps.
    """
    convs, last = len(hint.blocks) + 2, outputs - 1
    diffusers = Names(
        ("conv_in", *(f"blocks.{i}" for i in range(convs - 2)), "conv_out"),
        (*(f"controlnet_down_blocks.{i}" for i in range(last)), "controlnet_mid_block"),
    )
    original = Names(
        tuple(f"input_hint_block.{2 * i}" for i in range(convs)),
        (*(f"zero_convs.{i}.0" for i in range(last)), "middle_block_out.0"),
    )
    for layout in copy.layouts():
        own = [replace(weld, ours=f"copy.{weld.ours}") for weld in layout.welds]
        if layout.name.startswith("diffusers") and layout.config.get("cross_attention_dim"):
            names = replace(diffusers, hint=tuple(f"controlnet_cond_embedding.{name}" for name in diffusers.hint))
            config = _config(layout.config, hint, channels, pool)
            yield replace(layout, welds=(*own, *_added(names)), config=config)
        elif layout.name.startswith("ldm"):
            yield replace(layout, welds=(*own, *_added(original)), prefix="control_model.")


def _config(config: Mapping[str, Any], hint: HintEncoder, channels: int, pool: bool) -> dict[str, Any]:
    return {
        "_class_name": "ControlNetModel",
        **{key: config[key] for key in _KNOWN if key in config},
        "conditioning_channels": channels,
        "conditioning_embedding_out_channels": list(hint.widths),
        "global_pool_conditions": pool,
    }


def _added(names: Names) -> Iterator[Weld]:
    ours = ["hint.enter", *(f"hint.blocks.{i}" for i in range(len(names.hint) - 2)), "hint.leave"]
    ours += [f"zeros.{i}" for i in range(len(names.output))]
    for mine, theirs in zip(ours, (*names.hint, *names.output), strict=True):
        for tensor in _TENSORS:
            yield Weld(f"{mine}.{tensor}", (f"{theirs}.{tensor}",))
