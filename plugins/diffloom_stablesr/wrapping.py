"""FeatureWrapping: a decoder that looks at the small image while it decodes (StableSR, section 3.3; CodeFormer's idea).

    F_m = F_d + w · C(F_e, F_d; θ),    w ∈ [0, 1]

at the levels that are neither the finest nor the coarsest: F_d is what the decoder made, F_e what the encoder saw of
the enlarged small image at that level. Small w trusts the diffusion model, large w the image; with w = 0 it is the
plain decoder.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom.autoencoder import Autoencoder, Posterior
from diffloom.errors import IncompatibleParts
from diffloom.window import weights, windows
from diffloom_ldm.autoencoders.coder import Block
from diffloom_ldm.autoencoders.kl import KL
from diffloom_nets import Conv2d

_LEVELS = 3
_EXAMPLE = {"type": "kl", "channels": 8, "multipliers": (1, 1, 2), "blocks": 1, "groups": 4, "scale": 0.5}
_SLOPE, _SHARE = 0.2, 0.2


class DenseBlock(nn.Module):
    """Five convolutions, each seeing all before it; a fifth of what comes out is added (Wang et al. 2018, ESRGAN)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        widths = [channels + i * growth for i in range(5)]
        self.convs = nn.ModuleList([Conv2d(width, growth, 3, padding=1) for width in widths[:-1]])
        self.last = Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map, in its own shape."""
        seen = x
        for conv in self.convs:
            seen = torch.cat([seen, functional.leaky_relu(conv(seen), _SLOPE)], 1)
        return torch.add(x, self.last(seen), alpha=_SHARE)


class RRDB(nn.Module):
    """Three dense blocks, a fifth of which is added."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[DenseBlock(channels, growth) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        """Return the map, in its own shape."""
        made: Tensor = self.blocks(x)
        return x + _SHARE * made


class Fusion(nn.Module):
    """C: residual block 2c → c, RRDBs, residual block.

    Args:
        channels: c.
        blocks: How many RRDBs.
        growth: What each convolution of a dense block adds.
        groups: Most groups of the normalisations.
    """

    def __init__(self, channels: int, *, blocks: int, growth: int, groups: int) -> None:
        super().__init__()
        self.enter = Block(2 * channels, channels, groups=groups)
        self.dense = nn.Sequential(*[RRDB(channels, growth) for _ in range(blocks)])
        self.leave = Block(channels, channels, groups=groups)

    def forward(self, seen: Tensor, made: Tensor) -> Tensor:
        """Return what is added to the decoder's map `made` beside the encoder's `seen`, both (B, c, H, W)."""
        added: Tensor = self.leave(self.dense(self.enter(torch.cat([seen, made], 1))))
        return added


class FeatureWrapping(Autoencoder):
    """An autoencoder whose decoder can be told what the small image shows; latents are its base's.

    Args:
        base: What is wrapped: `{type: kl, …}`, with its weights.
        fidelity: w, from 0, the plain decoder, to 1; 0.5 in the paper, and 1 while it is trained.
        blocks: RRDBs of each fusion.
        growth: What each convolution of a dense block adds.
        groups: Most groups of the normalisations.

    Raises:
        IncompatibleParts: The base is no `kl`, or has no level between the finest and the coarsest.
    """

    examples: ClassVar[Sequence[Mapping[str, Any]]] = ({"base": _EXAMPLE, "blocks": 1, "growth": 4, "groups": 4},)

    def __init__(
        self,
        *,
        base: Autoencoder,
        fidelity: Annotated[float, Field(ge=0, le=1)] = 0.5,
        blocks: Annotated[int, Field(gt=0)] = 2,
        growth: Annotated[int, Field(gt=0)] = 32,
        groups: Annotated[int, Field(gt=0)] = 32,
    ) -> None:
        super().__init__()
        if not isinstance(base, KL) or len(base.plan.widths) < _LEVELS:
            raise IncompatibleParts(
                "there is nothing between the finest and the coarsest level to wrap",
                where="autoencoder.base",
                expected=f"an autoencoder of type kl with {_LEVELS} levels or more",
                got=type(base).__name__,
            )
        self.base, self.fidelity = base, fidelity
        self.stride, self.latent_channels = base.stride, base.latent_channels
        self.image_channels, self.reach = base.image_channels, base.reach
        widths = base.plan.widths
        self.fusions = nn.ModuleDict(
            {
                str(level): Fusion(widths[level], blocks=blocks, growth=growth, groups=groups)
                for level in range(1, len(widths) - 1)
            }
        )

    def encode(self, x: Tensor) -> Posterior:
        """Return the base's posterior."""
        return self.base.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Return what the plain decoder makes of scaled latents."""
        return self.base.decode(z)

    def is_scaled(self) -> bool:
        """Return whether the base's latents are known to have unit size."""
        return self.base.is_scaled()

    def restore(self, z: Tensor, image: Tensor, *, fidelity: float | None = None) -> Tensor:
        """Return images decoded beside the enlarged small image.

        Args:
            z: Scaled latents, (B, c, H/stride, W/stride).
            image: (B, C, H, W) in [−1, 1].
            fidelity: w; the component's by default.

        Returns:
            (B, C, H, W); where `tile` is set, larger ones are made in overlapping windows that are blended.
        """
        w = self.fidelity if fidelity is None else fidelity
        if w == 0:
            return self.decode(z)
        if self.tile is None or max(z.shape[2:]) <= self.tile:
            return self._restored(z, image, w)
        out, total = torch.zeros_like(image), torch.zeros_like(image[:1, :1])
        for window in windows((z.shape[2], z.shape[3]), self.tile, self.tile // 2):
            made = self._restored(window.cut(z), window.cut(image), w)
            counts = weights(*made.shape[2:]).to(made)
            window.cut(out).add_(made * counts)
            window.cut(total).add_(counts)
        return out / total

    def _restored(self, z: Tensor, image: Tensor, w: float) -> Tensor:
        with torch.no_grad():
            seen = self.base.encoder.features(image)

        def edit(level: int, made: Tensor) -> Tensor:
            if str(level) not in self.fusions:
                return made
            return torch.add(made, self.fusions[str(level)](seen[level], made), alpha=w)

        return self.base.picture(z / self.base.scale + self.base.shift, edit)
