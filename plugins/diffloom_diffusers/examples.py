"""Small models with new weights, written as folders for the contracts to try."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from diffloom_diffusers.library import library

_BLOCKS = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}


def networks(folder: Path) -> tuple[dict[str, Any], ...]:
    """Write a U-Net, one with context and classes, and a transformer, for RGB images of 16×16 pixels."""
    made: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": ("UNet2DModel", _unet(("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D"))),
        "told": (
            "UNet2DConditionModel",
            _unet(("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D"))
            | {
                "in_channels": 5,
                "out_channels": 3,
                "cross_attention_dim": 12,
                "num_class_embeds": 3,
                "attention_head_dim": 2,
            },
        ),
        "transformer": (
            "DiTTransformer2DModel",
            {
                "num_attention_heads": 2,
                "attention_head_dim": 8,
                "in_channels": 3,
                "out_channels": 6,
                "num_layers": 2,
                "norm_num_groups": 4,
                "sample_size": 16,
                "patch_size": 4,
                "num_embeds_ada_norm": 4,
            },
        ),
    }
    return tuple({"folder": str(_written(folder / name, *model))} for name, model in made.items())


def autoencoders(folder: Path) -> tuple[dict[str, Any], ...]:
    """Write a KL, a vector-quantised and a tiny autoencoder for RGB images."""
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, **_BLOCKS}
    tiny = {"encoder_block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 8, 8, 8)}
    made: dict[str, tuple[str, dict[str, Any]]] = {
        "kl": ("AutoencoderKL", {**blocks, "latent_channels": 4, "shift_factor": 0.1}),
        "vq": ("VQModel", {**blocks, "latent_channels": 3, "num_vq_embeddings": 16}),
        "tiny": ("AutoencoderTiny", {**tiny, "num_encoder_blocks": (1,) * 4, "num_decoder_blocks": (1,) * 4}),
    }
    return tuple({"folder": str(_written(folder / name, *model))} for name, model in made.items())


def _unet(down: Sequence[str], up: Sequence[str]) -> dict[str, Any]:
    return {**_BLOCKS, "down_block_types": down, "up_block_types": up, "attention_head_dim": 4, "sample_size": 16}


def _written(folder: Path, name: str, config: dict[str, Any]) -> Path:
    """Save a model with weights that are always the same, and return its folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(library(), name)(**config)
    model.save_pretrained(str(folder), safe_serialization=True)
    return folder
