"""How diffusers and the files of latent diffusion name the weights of a U-Net.

They differ in names, in how an attention's parts are cut, and in where they count what lies between two levels:
diffusers gives it to the level before; latent diffusion makes it an input block of its own on the way down, and the
last part of an output block on the way up.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from diffloom.layout import Layout, Weld
from diffloom_nets import ResBlock, SelfAttention, SpatialTransformer
from diffloom_unet.configs import diffusers_config
from diffloom_unet.places import Place, places

if TYPE_CHECKING:
    from diffloom_unet.unet import UNet

Welds = Iterator[Weld]


@dataclass(frozen=True)
class Names:
    """The names of one library.

    Attributes:
        layers: Of single layers and of those of a residual block, by ours.
        prefix: Before the keys of what lies at a place.
        attention: Names the tensors of a self-attention, for its prefixes (ours, theirs) and number of heads.
    """

    layers: Mapping[str, str]
    prefix: Callable[[Place], str]
    attention: Callable[[str, str, int], Welds]


def layouts(net: "UNet") -> tuple[Layout, ...]:
    """Return the layouts of a network; with transformers, those with 1×1 convolutions around them, then with linears.

    The linear ones are Stable Diffusion 2's. A layout is left out where the library cannot express the network. A copy
    that ends with the middle has its tensors named as in the whole network, and a configuration without a class.
    """
    found = []
    for linear in (False, True) if net.ports.context else (False,):
        config = diffusers_config(net, linear=linear)
        suffix = "-linear" if linear else ""
        if config is not None:
            welds = tuple(_welds(net, _DIFFUSERS, linear))
            found.append(Layout(f"diffusers{suffix}", welds, aliases=_OLD_SPELLINGS, config=config))
        if net.time.project is None:
            welds = tuple(_welds(net, _LDM, linear))
            found.append(Layout(f"ldm{suffix}", welds, prefix="model.diffusion_model."))
    return tuple(found)


def _welds(net: "UNet", names: Names, linear: bool) -> Welds:
    """Yield a weld for every tensor of the network."""
    layers = names.layers
    for ours in ("time.expand", "time.mix", "stem", *(("norm", "head") if net.head is not None else ())):
        yield from _layer(ours, layers[ours])
    if net.time.project is not None:
        yield from _layer("time.project", layers["time.project"])
    times = []
    for place in places(net.down, net.middle, net.up):
        part, prefix = place.part, names.prefix(place)
        if isinstance(part, ResBlock):
            times.append(f"{prefix}.{layers['project']}")
            yield from _block(part, place.ours, prefix, layers)
        elif isinstance(part, SelfAttention):
            yield from names.attention(place.ours, prefix, part.heads)
        elif isinstance(part, SpatialTransformer):
            yield from _transformer(part, place.ours, prefix, linear)
        else:
            yield from _layer(f"{place.ours}.conv", prefix)
    widths = tuple(net.project.widths)
    for tensor in ("weight", "bias"):
        yield Weld(f"project.{tensor}", tuple(f"{time}.{tensor}" for time in times), widths)


def _layer(ours: str, theirs: str, dims: int | None = None) -> Welds:
    yield Weld(f"{ours}.weight", (f"{theirs}.weight",), dims=dims)
    yield Weld(f"{ours}.bias", (f"{theirs}.bias",))


def _block(block: ResBlock, ours: str, theirs: str, layers: Mapping[str, str]) -> Welds:
    for name in ("norm1", "conv1", "norm2", "conv2"):
        yield from _layer(f"{ours}.{name}", f"{theirs}.{layers[name]}")
    if block.skip is not None:
        yield from _layer(f"{ours}.skip", f"{theirs}.{layers['skip']}")


def _transformer(transformer: SpatialTransformer, ours: str, theirs: str, linear: bool) -> Welds:
    dims = None if linear else 4
    yield from _layer(f"{ours}.norm", f"{theirs}.norm")
    yield from _layer(f"{ours}.enter", f"{theirs}.proj_in", dims)
    for index in range(len(transformer.blocks)):
        here, there = f"{ours}.blocks.{index}", f"{theirs}.transformer_blocks.{index}"
        for name in ("norm1", "norm2", "norm3"):
            yield from _layer(f"{here}.{name}", f"{there}.{name}")
        qkv = ("to_q", "to_k", "to_v")
        yield Weld(f"{here}.attend.qkv.weight", tuple(f"{there}.attn1.{name}.weight" for name in qkv))
        yield from _layer(f"{here}.attend.proj", f"{there}.attn1.to_out.0")
        yield Weld(f"{here}.cross.q.weight", (f"{there}.attn2.to_q.weight",))
        yield Weld(f"{here}.cross.kv.weight", tuple(f"{there}.attn2.{name}.weight" for name in qkv[1:]))
        yield from _layer(f"{here}.cross.proj", f"{there}.attn2.to_out.0")
        yield from _layer(f"{here}.feed.expand", f"{there}.ff.net.0.proj")
        yield from _layer(f"{here}.feed.contract", f"{there}.ff.net.2")
    yield from _layer(f"{ours}.leave", f"{theirs}.proj_out", dims)


def _diffusers_prefix(place: Place) -> str:
    level = "mid_block" if place.way == "mid" else f"{place.way}_blocks.{place.level}"
    if place.resamples:
        return f"{level}.{place.way}samplers.0{_unless_block(place.part, '.conv')}"
    return f"{level}.{'resnets' if isinstance(place.part, ResBlock) else 'attentions'}.{place.index}"


def _diffusers_attention(ours: str, theirs: str, heads: int) -> Welds:
    yield from _layer(f"{ours}.norm", f"{theirs}.group_norm")
    for tensor, dims in (("weight", 2), ("bias", None)):
        yield Weld(f"{ours}.qkv.{tensor}", tuple(f"{theirs}.to_{name}.{tensor}" for name in "qkv"), dims=dims)
    yield from _layer(f"{ours}.proj", f"{theirs}.to_out.0", 2)


def _ldm_prefix(place: Place) -> str:
    block = isinstance(place.part, ResBlock)
    if place.way == "mid":
        return f"middle_block.{2 * place.index if block else 1}"
    if place.way == "down":
        own = _unless_block(place.part, ".op") if place.resamples else ""
        return f"input_blocks.{place.steps + 1}.{int(not block and not place.resamples)}{own}"
    if place.resamples:
        return f"output_blocks.{place.stages - 1}.{1 + place.attended}{_unless_block(place.part, '.conv')}"
    return f"output_blocks.{place.stages}.{int(not block)}"


def _ldm_attention(ours: str, theirs: str, heads: int) -> Welds:
    yield from _layer(f"{ours}.norm", f"{theirs}.norm")
    yield Weld(f"{ours}.qkv.weight", (f"{theirs}.qkv.weight",), dims=3, heads=heads)
    yield Weld(f"{ours}.qkv.bias", (f"{theirs}.qkv.bias",), heads=heads)
    yield from _layer(f"{ours}.proj", f"{theirs}.proj_out", 3)


def _unless_block(part: nn.Module, name: str) -> str:
    return "" if isinstance(part, ResBlock) else name


_DIFFUSERS = Names(
    layers={
        "time.expand": "time_embedding.linear_1",
        "time.mix": "time_embedding.linear_2",
        "time.project": "class_embedding",
        "stem": "conv_in",
        "norm": "conv_norm_out",
        "head": "conv_out",
        "norm1": "norm1",
        "conv1": "conv1",
        "project": "time_emb_proj",
        "norm2": "norm2",
        "conv2": "conv2",
        "skip": "conv_shortcut",
    },
    prefix=_diffusers_prefix,
    attention=_diffusers_attention,
)

_LDM = Names(
    layers={
        "time.expand": "time_embed.0",
        "time.mix": "time_embed.2",
        "stem": "input_blocks.0.0",
        "norm": "out.0",
        "head": "out.2",
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "project": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "skip": "skip_connection",
    },
    prefix=_ldm_prefix,
    attention=_ldm_attention,
)

_OLD_SPELLINGS = (
    (r"(attentions\.\d+)\.query\.", r"\1.to_q."),
    (r"(attentions\.\d+)\.key\.", r"\1.to_k."),
    (r"(attentions\.\d+)\.value\.", r"\1.to_v."),
    (r"(attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
)
