"""Encoders: frozen networks that make one embedding of an image, for those who are told what an image is about."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom.errors import DataError
from diffloom.layout import Layout, Weld
from diffloom.paths import existing_folder, expand
from diffloom.recipe.weights import fit
from diffloom.stored import read_json, stored
from diffloom.vision_compat import ensure_torchvision
from diffloom_ldm.conditioners.clip_text import transformers

_WHERE = "content-image"
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Encoder:
    """A frozen network, image ↦ embedding. It is neither trained nor saved by who uses it.

    Attributes:
        model: The network.
        embed: Pixels as the network wants them ↦ (B, width).
        width: Of the embedding.
        size: Height and width of its images.
        mean: Of its training images' channels, in [0, 1].
        deviation: Of the same.
        files: Where its weights came from.
    """

    model: nn.Module
    embed: Callable[[Tensor], Tensor]
    width: int
    size: tuple[int, int]
    mean: Sequence[float]
    deviation: Sequence[float]
    files: tuple[Path, ...]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the embeddings (B, width), float32, of images (B, 1 or 3, H, W) in [−1, 1].

        They are scaled to the network's size, antialiased; grey is repeated.
        """
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise DataError(
                "this is no image for the network",
                where=_WHERE,
                expected="(B, 3, H, W), or one channel",
                got=str(tuple(images.shape)),
            )
        pixels = images.float().add(1).div(2).expand(-1, 3, -1, -1)
        pixels = functional.interpolate(pixels, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, deviation = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.deviation))
        return self.embed((pixels - mean) / deviation).float()


class _ClipVision(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def layouts(self) -> Sequence[Layout]:
        """Return the layout of transformers, whose files may hold CLIP's text network as well."""
        welds = tuple(Weld(name, (name.removeprefix("model."),)) for name in self.state_dict())
        ignored = (r"position_ids$", rf"^(?!{'|'.join(map(re.escape, ('vision_model.', 'visual_projection.')))})")
        return (Layout("transformers", welds, ignored=ignored),)


def clip_vision(folder: str) -> Encoder:
    """Return CLIP's vision network and its projection, from a folder in the layout of transformers.

    Args:
        folder: With `config.json` and the weights in safetensors, of CLIP as a whole or of its vision alone; `~` and
            environment variables are replaced.

    Raises:
        CheckpointError: The weights are missing, or of another network.
    """
    library, found = transformers(_WHERE), existing_folder(folder, where=_WHERE)
    if "vision_config" in read_json(found / "config.json"):
        whole = library.CLIPConfig.from_pretrained(str(found))
        config = whole.vision_config
        config.projection_dim = whole.projection_dim
    else:
        config = library.CLIPVisionConfig.from_pretrained(str(found))
    part = _ClipVision(library.CLIPVisionModelWithProjection(config)).eval().requires_grad_(False)
    files: tuple[Path, ...] = ()
    if not _pretended():
        source = stored(found)
        part.load_state_dict(fit(part, source.shapes, f"{_WHERE} ({found})")(source.read()))
        files = tuple(dict.fromkeys(source.files.values()))

    def embed(pixels: Tensor) -> Tensor:
        out: Tensor = part.model(pixel_values=pixels).image_embeds
        return out

    size = (config.image_size, config.image_size)
    return Encoder(part, embed, config.projection_dim, size, _CLIP_MEAN, _CLIP_DEVIATION, files)


def timm_network(architecture: str, file: str) -> Encoder:
    """Return a network of timm without its last layer.

    Args:
        architecture: Its name in timm.
        file: Its weights, safetensors or a plain state dictionary.

    Raises:
        CheckpointError: The weights cannot be read, or are another network's.
        IncompatibleParts: timm does not know the network.
    """
    ensure_torchvision()
    import timm  # which takes a second

    from diffloom_metrics.timm_network import pretrained

    path = expand(file, where=f"{_WHERE}.file")
    model: Any = timm.create_model(architecture, num_classes=0) if _pretended() else pretrained(architecture, path)
    config = model.pretrained_cfg
    width = getattr(model, "head_hidden_size", model.num_features)

    def embed(pixels: Tensor) -> Tensor:
        out: Tensor = model.forward_head(model.forward_features(pixels), pre_logits=True)
        return out.flatten(1)

    _, height, side = config["input_size"]
    files = () if _pretended() else (path,)
    return Encoder(model.eval(), embed, width, (height, side), config["mean"], config["std"], files)


def _pretended() -> bool:
    """Return whether only shapes are asked for: what is built now has no memory."""
    return torch.empty(0).device.type == "meta"
