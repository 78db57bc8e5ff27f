"""How the released files of StableSR name the weights of the time-aware encoder and of its modulations.

    structcond_stage_model.…                     the encoder
    model.diffusion_model.PLACE.spade.…          M_n, inside the residual block that it modulates

PLACE is where latent diffusion's own code has the block: `input_blocks.N.0`, `middle_block.N`, `output_blocks.N.0`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from torch import nn

from diffloom.layout import Layout, Weld
from diffloom_stablesr.encoder import Step, TimeAwareEncoder

_ENCODER, _NETWORK = "structcond_stage_model", "model.diffusion_model"
_OTHERS = rf"^(?!{_ENCODER}\.|{_NETWORK}\..*\.spade\.)"
_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}


def released(encoder: TimeAwareEncoder, strides: Mapping[str, int]) -> Layout:
    """Return the layout of the released files.

    Args:
        encoder: The encoder.
        strides: The taps that are modulated, in order, and their strides.
    """
    return Layout("StableSR", (*_encoder(encoder), *_modulations(strides)), ignored=(_OTHERS,))


def _encoder(encoder: TimeAwareEncoder) -> Iterator[Weld]:
    """Yield a weld for every tensor of the encoder."""
    yield from _layer("encoder.time.expand", f"{_ENCODER}.time_embed.0")
    yield from _layer("encoder.time.mix", f"{_ENCODER}.time_embed.2")
    yield from _layer("encoder.stem", f"{_ENCODER}.input_blocks.0.0")
    times = []
    for ours, theirs, attention, step in _steps(encoder):
        times.append(f"{theirs}.emb_layers.1")
        yield from _block(step, ours, theirs)
        if step.attention is not None:
            yield from _layer(f"{ours}.attention.norm", f"{attention}.norm")
            for tensor, dims in (("weight", 3), ("bias", None)):
                qkv = f"{ours}.attention.qkv.{tensor}"
                yield Weld(qkv, (f"{attention}.qkv.{tensor}",), dims=dims, heads=step.attention.heads)
            yield from _layer(f"{ours}.attention.proj", f"{attention}.proj_out", 3)
    between = len(cast(nn.ModuleList, encoder.levels[0])) + 1
    for index in range(len(encoder.halvings)):
        halving = f"{_ENCODER}.input_blocks.{between * (index + 1)}.0.op"
        yield from _layer(f"encoder.halvings.{index}.conv", halving)
    for tensor in ("weight", "bias"):
        yield Weld(f"encoder.project.{tensor}", tuple(f"{time}.{tensor}" for time in times), _rows(encoder))


def _steps(encoder: TimeAwareEncoder) -> Iterator[tuple[str, str, str, Step]]:
    """Yield (ours, their block, their attention, step) in the order in which time is projected for them."""
    number = 1
    for index, level in enumerate(cast(Iterable[Iterable[nn.Module]], encoder.levels)):
        for place, step in enumerate(level):
            theirs = f"{_ENCODER}.input_blocks.{number}"
            yield f"encoder.levels.{index}.{place}", f"{theirs}.0", f"{theirs}.1", cast(Step, step)
            number += 1
        number += 1  # what halves the map
    for place, step in enumerate(encoder.middle):
        theirs = f"{_ENCODER}.middle_block"
        yield f"encoder.middle.{place}", f"{theirs}.{2 * place}", f"{theirs}.1", cast(Step, step)
    for place, step in enumerate(encoder.out):
        yield f"encoder.out.{place}", f"{_ENCODER}.fea_tran.{place}", "", cast(Step, step)


def _rows(encoder: TimeAwareEncoder) -> tuple[int, ...]:
    return tuple(encoder.project.widths)


def _block(step: Step, ours: str, theirs: str) -> Iterator[Weld]:
    for name, their in _BLOCK.items():
        if name != "skip" or step.block.skip is not None:
            yield from _layer(f"{ours}.block.{name}", f"{theirs}.{their}")


def _modulations(strides: Mapping[str, int]) -> Iterator[Weld]:
    """Yield the welds of all modulations; γ and β are convolutions of their own there."""
    for number, (tap, stride) in enumerate(strides.items()):
        ours, theirs = f"modulations.{number}", f"{_NETWORK}.{_place(tap, stride)}.spade"
        yield Weld(f"{ours}.gain", (f"{theirs}.param_free_norm.weight",))
        yield Weld(f"{ours}.offset", (f"{theirs}.param_free_norm.bias",))
        yield from _layer(f"{ours}.inner", f"{theirs}.mlp_shared.0")
        for tensor in ("weight", "bias"):
            yield Weld(f"{ours}.outer.{tensor}", tuple(f"{theirs}.mlp_{name}.{tensor}" for name in ("gamma", "beta")))


def _place(tap: str, stride: int) -> str:
    """Return where latent diffusion's code has the block of a tap `res.WAY.N`."""
    _, way, number = tap.split(".")
    if way == "mid":
        return f"middle_block.{2 * int(number)}"
    if way == "up":
        return f"output_blocks.{number}.0"
    halved = stride.bit_length() - 1
    return f"input_blocks.{int(number) + halved + 1}.0"


def _layer(ours: str, theirs: str, dims: int | None = None) -> Iterator[Weld]:
    yield Weld(f"{ours}.weight", (f"{theirs}.weight",), dims=dims)
    yield Weld(f"{ours}.bias", (f"{theirs}.bias",))
