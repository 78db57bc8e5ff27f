"""Folders as diffusers writes them for Stable Diffusion, at full size and without the weights: files with holes."""

import json
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffloom.vision_compat import ensure_torchvision

ensure_torchvision()

from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel  # noqa: E402  after torchvision is importable
from transformers import (  # noqa: E402
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)


def stable_diffusion(folder: Path, *, two: bool) -> Path:
    """Write the folder of version 1.5, or of 2.1; all weights are 0 and take no room on disk."""
    unet: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
    text: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    if two:
        unet = {"sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20]}
        unet["use_linear_projection"] = True
        text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights of 0 elements need no initialisation
        net = UNet2DConditionModel(**unet)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        clip = CLIPTextModel(CLIPTextConfig(num_attention_heads=text["hidden_size"] // 64, **text))
    for part, model, name in (
        ("unet", net, "diffusion_pytorch_model"),
        ("vae", vae, "diffusion_pytorch_model"),
        ("text_encoder", clip, "model"),
    ):
        sparse(model.state_dict(), folder / part / f"{name}.safetensors")
    net.save_config(str(folder / "unet"))
    vae.save_config(str(folder / "vae"))
    clip.config.save_pretrained(str(folder / "text_encoder"))
    (folder / "model_index.json").write_text("{}")
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(words))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    return folder


def controlnet(folder: Path) -> Path:
    """Write the folder of a ControlNet of version 1.5 whose weights are 0 and take no room on disk."""
    with torch.device("meta"):
        net = ControlNetModel(cross_attention_dim=768)
    sparse(net.state_dict(), folder / "diffusion_pytorch_model.safetensors")
    net.save_config(str(folder))
    return folder


def clip_vision(folder: Path) -> Path:
    """Write the folder of CLIP's vision network ViT-L/14 with its projection; all weights are 0, as above."""
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        projection_dim=768,
    )
    with torch.device("meta"):
        sparse(CLIPVisionModelWithProjection(config).state_dict(), folder / "model.safetensors")
    config.save_pretrained(str(folder))
    return folder


def sparse(state: Mapping[str, torch.Tensor], file: Path) -> None:
    """Write weights that are on the meta device: a whole header, then zeros that are never stored."""
    header, end = {}, 0
    for key, value in state.items():
        begin, end = end, end + 2 * value.numel()
        header[key] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + end)


def stablesr(file: Path) -> Path:
    """Write the file of StableSR's encoder and modulations, named as the released ones; all weights are 0."""
    from diffloom import Space
    from diffloom_ldm.autoencoders.kl import KL
    from diffloom_stablesr.time_aware import TimeAwareSFT
    from diffloom_unet import UNet

    space = Space(4, (64, 64))
    with torch.device("meta"):
        net = UNet(
            space=space, channels=320, multipliers=(1, 2, 4, 4), attention=(64, 32, 16), head_width=64,
            context=1024, embedding="adm", padding="symmetric", eps=1e-5, vector=0,
        )  # fmt: skip
        part = TimeAwareSFT(denoiser=net, autoencoder=KL(space=Space(3, (512, 512)), latent=4), groups=32)
    sparse(part.layouts()[0].write(part.state_dict()), file)
    return file
