"""What diffusers calls a U-Net: the config.json that builds the same network there."""

from typing import TYPE_CHECKING, Any

from torch import nn

from diffloom_nets import SelfAttention

if TYPE_CHECKING:
    from diffloom_unet.unet import UNet

_OF_THE_WHOLE = {"_class_name", "out_channels", "up_block_types", "sample_size", "upsample_type"}


def diffusers_config(net: "UNet", *, linear: bool = False) -> dict[str, Any] | None:
    """Return the configuration of the same network in diffusers, or `None` where it cannot be expressed there.

    Args:
        net: With a context it is a UNet2DConditionModel there, without a UNet2DModel; a copy that ends with the middle
            is no class of its own, and what describes the rest is left out.
        linear: Whether linear layers, or 1×1 convolutions, lead into and out of the transformers.
    """
    groups = {norm.num_groups for norm in net.modules() if isinstance(norm, nn.GroupNorm)}
    if len(groups) > 1 or net.plan.widths[0] != net.plan.stem:
        return None
    special = _conditioned(net, linear) if net.ports.context else _unconditioned(net)
    if special is None:
        return None
    config = _common(net, groups.pop()) | special
    return config if net.head is not None else {key: config[key] for key in config.keys() - _OF_THE_WHOLE}


def _common(net: "UNet", groups: int) -> dict[str, Any]:
    plan, (height, width) = net.plan, net.space.size
    adm = net.time.convention == "adm"
    return {
        "sample_size": height if height == width else [height, width],
        "in_channels": net.stem.in_channels,
        "out_channels": net.out_channels,
        "block_out_channels": list(plan.widths),
        "layers_per_block": plan.blocks,
        "downsample_padding": int(plan.padding == "symmetric"),
        "dropout": plan.dropout,
        "norm_num_groups": groups,
        "norm_eps": plan.eps,
        "resnet_time_scale_shift": "scale_shift" if plan.scale_shift else "default",
        "flip_sin_to_cos": adm,
        "freq_shift": int(not adm),
        "act_fn": "silu",
    }


def _conditioned(net: "UNet", linear: bool) -> dict[str, Any] | None:
    plan = net.plan
    if plan.resampling != "conv":
        return None
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in plan.attended],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(plan.attended)],
        "cross_attention_dim": net.ports.context,
        "attention_head_dim": [plan.heads_of(width) for width in plan.widths],  # the number of heads, whatever its name
        "transformer_layers_per_block": list(plan.depths),
        "use_linear_projection": linear,
    }
    if net.time.project is not None:
        config["class_embed_type"] = "simple_projection"
        config["projection_class_embeddings_input_dim"] = net.ports.vector
    return config


def _unconditioned(net: "UNet") -> dict[str, Any] | None:
    plan = net.plan
    attentions = [part for part in net.modules() if isinstance(part, SelfAttention)]
    widths = {part.proj.in_channels // part.heads for part in attentions}
    single = all(part.heads == 1 for part in attentions)
    if net.time.project is not None or (len(widths) > 1 and not single):
        return None
    residual = plan.resampling == "residual"
    kind = "Resnet{}sampleBlock2D" if residual else "{}Block2D"
    return {
        "_class_name": "UNet2DModel",
        "down_block_types": ["AttnDownBlock2D" if a else kind.format("Down") for a in plan.attended],
        "up_block_types": ["AttnUpBlock2D" if a else kind.format("Up") for a in reversed(plan.attended)],
        "downsample_type": "resnet" if residual else "conv",
        "upsample_type": "resnet" if residual else "conv",
        "attention_head_dim": None if single else widths.pop(),
        "attn_norm_num_groups": attentions[0].norm.num_groups if plan.scale_shift else None,
    }
