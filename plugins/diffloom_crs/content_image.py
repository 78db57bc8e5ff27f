"""ContentImage: what another image is about, as a few tokens of the context (Zhao et al. 2023; Tang et al. 2024).

    tokens = strength · F₂(norm F₁(norm e)),    F(x) = W₂(a ⊙ gelu(b)) + …, [a | b] = W₁ x

of the image's embedding e (Uni-ControlNet, arXiv 2305.16322; CRS-Diff, arXiv 2403.11614). They follow the tokens of the
conditioners before. An absent image is the embedding 0: that says something, since F has biases, as the released code
does; with `masked` nobody looks at its tokens.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner, length
from diffloom.denoiser import Denoiser
from diffloom.errors import DataError, IncompatibleParts
from diffloom.layout import Layout, Weld
from diffloom.space import Space
from diffloom_crs.encoders import Encoder, clip_vision, timm_network
from diffloom_ldm.conditioners.clip_text import transformers
from diffloom_ldm.conditioners.ports import context_width
from diffloom_nets import FeedForward

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
_WHERE = "content-image"
_EMBEDDING = 2  # dimensions of a batch of embeddings


class Adapter(nn.Module):
    """Two normalised feed-forward layers, embedding ↦ tokens.

    Args:
        width: Of the embedding.
        tokens: How many.
        out: Width of each.
        dropout: Of each layer.
    """

    def __init__(self, width: int, tokens: int, out: int, dropout: tuple[float, float]) -> None:
        super().__init__()
        self.tokens = tokens
        self.norm1, self.feed1 = nn.LayerNorm(width), FeedForward(width, 2 * width, dropout=dropout[0])
        self.norm2, self.feed2 = nn.LayerNorm(2 * width), FeedForward(2 * width, tokens * out, dropout=dropout[1])

    def forward(self, embedding: Tensor) -> Tensor:
        """Return tokens (B, tokens, out) of embeddings (B, width)."""
        out: Tensor = self.feed2(self.norm2(self.feed1(self.norm1(embedding))))
        return out.view(len(out), self.tokens, -1)


class ContentImage(Conditioner):
    """Tokens of a content image for cross-attention; nothing said are those of the embedding 0.

    Where it gets embeddings from: a batch that has them, CLIP's vision network (`folder`), or a network of timm
    (`network` with `file`). The network is frozen, and not saved with the conditioner.

    Args:
        key: Where a batch has the image (B, 3, H, W) in [−1, 1], or its embedding (B, E). It may lack it.
        folder: CLIP in the layout of transformers; `~` and environment variables are replaced.
        network: Name of a network of timm.
        file: Its weights.
        width: Of embeddings that a batch has; by default that of the denoiser's context.
        tokens: How many tokens are made.
        strength: What they are multiplied by.
        masked: Whether the tokens of an absent image, and all of them at strength 0, are kept out of attention.
        dropout: Of the adapter's two layers.
        denoiser: Whose context port is filled.

    Raises:
        IncompatibleParts: The denoiser has no context port, or two sources of embeddings are given.
        CheckpointError: The network's weights are missing, or of another network.
    """

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, object], ...]:
        """Return one that is given embeddings, and one with a network of random weights."""
        small_clip_vision(folder, width=6)
        masked: dict[str, object] = {"key": "content", "folder": str(folder), "tokens": 2, "masked": True}
        return {"key": "embedding", "width": 6}, masked

    @staticmethod
    def example_batch(count: int, space: Space) -> dict[str, Any]:
        """Return images and embeddings."""
        generator = torch.Generator().manual_seed(0)
        content = torch.rand(count, 3, *space.size, generator=generator) * 2 - 1
        return {"content": content, "embedding": torch.randn(count, 6, generator=generator)}

    def __init__(
        self,
        *,
        key: str = "content",
        folder: str | None = None,
        network: str | None = None,
        file: str | None = None,
        width: Count | None = None,
        tokens: Count = 4,
        strength: Annotated[float, Field(ge=0)] = 1.0,
        masked: bool = False,
        dropout: tuple[Share, Share] = (0.1, 0.3),
        denoiser: Denoiser,
    ) -> None:
        super().__init__()
        context = context_width(denoiser, _WHERE)
        self.key, self.wants = key, (key,)
        self.strength, self.masked = strength, masked
        self._encoder = _encoder(folder, network, file)
        self.width = width or context if self._encoder is None else self._encoder.width
        self.weight_files = () if self._encoder is None else self._encoder.files
        self.adapter = Adapter(self.width, tokens, context, dropout)
        self.gives = Ports(context=context)

    def encode(self, batch: Batch) -> Condition:
        """Return the tokens (B, tokens, width of the context).

        Raises:
            DataError: What stands at the key is neither an image nor an embedding of the right width.
        """
        found = batch.get(self.key)
        return self._nothing(length(batch)) if found is None else self._told(self._embedding(found), there=True)

    def null(self, code: Condition) -> Condition:
        """Return the tokens of absent images."""
        return self._nothing(0 if code.context is None else code.context.shape[0])

    def layouts(self) -> Sequence[Layout]:
        """Return that of CRS-Diff's and Uni-ControlNet's files."""
        names = {"expand": "net.0.proj", "contract": "net.2"}
        pairs = [(f"feed{n}.{ours}", f"ff{n}.{theirs}") for n in (1, 2) for ours, theirs in names.items()]
        pairs += [(f"norm{n}", f"norm{n}") for n in (1, 2)]
        welds = [Weld(f"adapter.{a}.{part}", (f"{b}.{part}",)) for a, b in pairs for part in ("weight", "bias")]
        return tuple(
            Layout(name, tuple(welds), prefix=prefix)
            for name, prefix in (("crs-diff", "global_content_adapter."), ("uni-controlnet", "global_adapter."))
        )

    def _embedding(self, found: Tensor) -> Tensor:
        if self._encoder is not None and found.dim() != _EMBEDDING:
            return self._encoder(found.to(self._device()))
        if found.dim() != _EMBEDDING or found.shape[1] != self.width:
            raise DataError(
                "this is not the embedding that was announced",
                where=self.key,
                expected=f"(B, {self.width})",
                got=str(tuple(found.shape)),
                remedy="set the conditioner's `width`, or give it a network with `folder` or `network`",
            )
        return found.to(self._device(), torch.float32)

    def _nothing(self, count: int) -> Condition:
        return self._told(torch.zeros(count, self.width, device=self._device()), there=False)

    def _told(self, embedding: Tensor, *, there: bool) -> Condition:
        tokens = self.strength * self.adapter(embedding)
        counts = torch.full(tokens.shape[:2], there and self.strength > 0, device=tokens.device)
        return Condition(context=tokens, context_mask=counts if self.masked else None)

    def _device(self) -> torch.device:
        return self.adapter.norm1.weight.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if self._encoder is not None:  # it is no child, and goes where the children go
            self._encoder.model._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves it untyped


def _encoder(folder: str | None, network: str | None, file: str | None) -> Encoder | None:
    """Return the network that a recipe names, if it does."""
    if (folder and network) or bool(network) != bool(file):
        raise IncompatibleParts(
            "embeddings come from one network, with its weights",
            where=_WHERE,
            expected="`folder`, or `network` and `file`, or none of them",
            got=", ".join(f"`{k}`" for k, v in {"folder": folder, "network": network, "file": file}.items() if v),
        )
    if folder:
        return clip_vision(folder)
    return timm_network(network, file) if network and file else None


def small_clip_vision(folder: Path, *, width: int, size: int = 16) -> None:
    """Write CLIP's vision network, small and of random weights, to a folder, for tests.

    Args:
        folder: Where; it exists.
        width: Of the embedding.
        size: Side of its images.
    """
    library = transformers(_WHERE)
    config = library.CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=size,
        patch_size=size // 2,
        projection_dim=width,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        library.CLIPVisionModelWithProjection(config).save_pretrained(str(folder))
