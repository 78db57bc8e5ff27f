"""diffusers' UNet2DModel with our weights: the oracle of the tests, the opponent of the benchmark."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from diffloom.space import Space
from diffloom.vision_compat import ensure_torchvision
from diffloom_nets import zero
from diffloom_unet import UNet
from diffloom_unet.stages import Stage

_MUTED = {f"mid_block.attentions.0.group_norm.{name}" for name in ("weight", "bias")}


Net = TypeVar("Net", bound=nn.Module)


def scramble(net: Net, seed: int = 0) -> Net:
    """Give every parameter random numbers, so that no zero layer hides an error, and unit scale is kept."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 1
            draw = torch.randn(parameter.shape, generator=generator)
            centre = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.copy_(centre + draw * (fan**-0.5 if parameter.dim() > 1 else 0.1))
    return net


def pair(size: int = 32, bands: int = 3, **config: Any) -> tuple[UNet, Any]:
    """Return our network and theirs, equal in every weight, both in evaluation mode."""
    ours = UNet(space=Space(bands, (size, size)), **config)
    scramble(ours)
    theirs = twin(ours, size, **config)
    if config.get("scale_shift"):  # their attention in the middle then has no normalisation: it is muted
        attention: Any = ours.middle[0].attention
        zero(attention.proj)
    known = theirs.state_dict()
    weights = {name: value for name, value in translated(ours).items() if name in known}
    if set(translated(ours)) - set(weights) - _MUTED:
        raise ValueError("a weight has no counterpart")
    theirs.load_state_dict(weights)
    return ours.eval(), theirs.eval()


def twin(net: UNet, size: int, **config: Any) -> Any:
    """Return diffusers' network of the same architecture."""
    ensure_torchvision()
    from diffusers import UNet2DModel

    width = config.get("channels", 64)
    multipliers = config.get("multipliers", (1, 2, 2, 2))
    sizes = [size >> level for level in range(len(multipliers))]
    attended = [s in config.get("attention", ()) for s in sizes]
    adm = config.get("embedding", "ddpm") == "adm"
    head_dim = config.get("head_width") or (width * multipliers[-1]) // config.get("heads", 1)
    return UNet2DModel(
        sample_size=size,
        in_channels=net.stem.in_channels,
        out_channels=net.out_channels,
        block_out_channels=tuple(width * m for m in multipliers),
        layers_per_block=config.get("blocks", 2),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)),
        attention_head_dim=head_dim,
        downsample_padding=0 if config.get("padding", "same") == "same" else 1,
        flip_sin_to_cos=adm,
        freq_shift=0 if adm else 1,
        norm_num_groups=net.norm.num_groups,
        norm_eps=net.norm.eps,
        resnet_time_scale_shift="scale_shift" if config.get("scale_shift") else "default",
        dropout=config.get("dropout", 0.0),
    )


def translated(net: UNet) -> dict[str, Tensor]:
    """Return our weights under diffusers' names."""
    out: dict[str, Tensor] = {}
    stages = [step for step in (*net.down, *net.middle, *net.up) if isinstance(step, Stage)]
    times = {
        id(stage): rows
        for stage, *rows in zip(
            stages,
            torch.split(net.project.weight, net.project.widths),
            torch.split(net.project.bias, net.project.widths),
            strict=True,
        )
    }

    def put(name: str, layer: Any) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = layer.weight, layer.bias

    def stage(prefix: str, index: int, step: Stage) -> None:
        block, name = step.block, f"{prefix}.resnets.{index}"
        put(f"{name}.norm1", block.norm1)
        put(f"{name}.conv1", block.conv1)
        out[f"{name}.time_emb_proj.weight"], out[f"{name}.time_emb_proj.bias"] = times[id(step)]
        put(f"{name}.norm2", block.norm2)
        put(f"{name}.conv2", block.conv2)
        if block.skip is not None:
            put(f"{name}.conv_shortcut", block.skip)
        if step.attention is not None:
            attend, name = step.attention, f"{prefix}.attentions.{index}"
            put(f"{name}.group_norm", attend.norm)
            for part, weight, bias in zip(
                ("to_q", "to_k", "to_v"),
                attend.qkv.weight.flatten(1).chunk(3),
                attend.qkv.bias.chunk(3),  # type: ignore[union-attr]  # every convolution here has a bias
                strict=True,
            ):
                out[f"{name}.{part}.weight"], out[f"{name}.{part}.bias"] = weight, bias
            out[f"{name}.to_out.0.weight"] = attend.proj.weight.flatten(1)
            out[f"{name}.to_out.0.bias"] = attend.proj.bias  # type: ignore[assignment]

    def way(prefix: str, steps: Any, sampler: str) -> None:
        level = index = 0
        for step in steps:
            if isinstance(step, Stage):
                stage(f"{prefix}.{level}", index, step)
                index += 1
            else:
                put(f"{prefix}.{level}.{sampler}.0.conv", step.conv)
                level, index = level + 1, 0

    put("time_embedding.linear_1", net.time.expand)
    put("time_embedding.linear_2", net.time.mix)
    put("conv_in", net.stem)
    way("down_blocks", net.down, "downsamplers")
    for index, step in enumerate(net.middle):
        stage("mid_block", index, step)  # type: ignore[arg-type]
    way("up_blocks", net.up, "upsamplers")
    put("conv_norm_out", net.norm)
    put("conv_out", net.head)
    return {name: value.detach().contiguous() for name, value in out.items()}
