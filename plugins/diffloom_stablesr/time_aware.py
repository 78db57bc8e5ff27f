"""TimeAwareSFT: a small image tells a frozen denoiser what to show (StableSR, Wang et al. 2023, section 3.2).

    (α_n, β_n) = M_n(F_enc[n], t);    F̂_n = (1 + α_n) ⊙ F_n + β_n

at every residual branch of the denoiser, before its skip is added: the taps `res.…`. M_n is small and its last layer
starts at 0, so a system begins as the denoiser alone. With `groups` the branch is normalised first, by group
normalisation with weights of its own, as the released code does and its weights need; then nothing is the identity.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom.autoencoder import Autoencoder
from diffloom.condition import Affine, Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import IncompatibleParts
from diffloom.layout import Layout
from diffloom_ldm.conditioners.ports import Borrowed
from diffloom_nets import Conv2d, xavier, zero
from diffloom_stablesr.encoder import Shape, TimeAwareEncoder
from diffloom_stablesr.layouts import released

Count = Annotated[int, Field(gt=0)]

_BRANCHES = "res."


class Modulation(nn.Module):
    """M_n: features → (scale, shift) of one tap.

    Args:
        features: Channels of the features.
        channels: Of the tap.
        hidden: Channels in between.
        groups: Of a normalisation of the tap that comes first; 0 for none.
    """

    def __init__(self, features: int, channels: int, *, hidden: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.inner = xavier(Conv2d(features, hidden, 3, padding=1))
        self.outer = zero(Conv2d(hidden, 2 * channels, 3, padding=1))
        self.gain = nn.Parameter(torch.ones(channels)) if groups else None
        self.offset = nn.Parameter(torch.zeros(channels)) if groups else None

    def forward(self, features: Tensor) -> Affine:
        """Return the edit of the tap for features (B, features, H, W)."""
        scale, shift = self.outer(functional.relu(self.inner(features))).chunk(2, 1)
        if self.gain is not None and self.offset is not None:  # (1 + γ)(g n + b) + β, n normalised without weights
            gain, offset = (part.view(-1, 1, 1) for part in (self.gain, self.offset))
            scale, shift = (1 + scale) * gain - 1, (1 + scale) * offset + shift
        return Affine(scale, shift, self.groups)


class TimeAwareSFT(Conditioner):
    """Spatial feature transforms from the latent of a small image, at every step anew.

    The small image is enlarged (bicubic), encoded, and never noised. Guide the other conditioners, not this one: it
    is given in every branch, and asked once for all of them.

    Args:
        denoiser: Whose residual branches are modulated.
        autoencoder: Encodes the enlarged image, to the most likely code.
        scale: How many times the small image is enlarged.
        channels: Width of the encoder's first level.
        multipliers: Width of each of its levels; every level after the first halves the map.
        blocks: Residual blocks per level.
        attention: Strides of the levels whose blocks are followed by attention.
        heads: Attention heads.
        width: Of the features that all modulations share.
        hidden: Channels inside a modulation.
        groups: Normalise the modulated branches first, in this many groups; 0 for none.
        time: Whether the encoder knows the time.
        key: Where a batch has the small image.

    Raises:
        IncompatibleParts: The denoiser publishes no residual branches, or at strides that the encoder lacks.
    """

    only_time = True
    examples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"channels": 8, "multipliers": (1, 1, 1), "blocks": 1, "attention": (2,), "heads": 1, "width": 8, "hidden": 8},
    )

    def __init__(
        self,
        *,
        denoiser: Denoiser,
        autoencoder: Autoencoder,
        scale: Annotated[int, Field(ge=1, le=32)] = 4,
        channels: Count = 256,
        multipliers: Annotated[Sequence[Count], Field(min_length=1)] = (1, 1, 2, 2),
        blocks: Count = 2,
        attention: Sequence[Count] = (1, 2, 4),
        heads: Count = 4,
        width: Count = 256,
        hidden: Count = 128,
        groups: Annotated[int, Field(ge=0)] = 0,
        time: bool = True,
        key: str = "low_res",
    ) -> None:
        super().__init__()
        latent = autoencoder.latent_channels
        shape = Shape(latent, channels, multipliers, blocks, attention, heads, width, 32)
        taps = [tap for tap in denoiser.taps if tap.name.startswith(_BRANCHES)]
        _require(taps and {tap.stride for tap in taps} <= set(shape.strides), taps, shape)
        self.scale, self.groups, self.key, self.needs = scale, groups, key, (key,)
        self._borrowed = Borrowed(autoencoder)
        self.encoder = TimeAwareEncoder(shape, timed=time)
        self.strides = {tap.name: tap.stride for tap in taps}
        self.modulations = nn.ModuleList(
            [Modulation(width, tap.channels, hidden=hidden, groups=groups) for tap in taps]
        )
        self.gives = Ports(affine={tap.name: tap.channels for tap in taps})

    def encode(self, batch: Batch) -> Tensor:
        """Return the latent of the enlarged image, (B, c, scale · h / stride, scale · w / stride)."""
        with torch.no_grad():
            return self._borrowed.autoencoder.encode(self.enlarged(batch[self.key])).mode()

    def enlarged(self, image: Tensor) -> Tensor:
        """Return the small image in the size of the answer, bicubic, held to [−1, 1]."""
        if self.scale == 1:
            return image
        size = [side * self.scale for side in image.shape[2:]]
        return functional.interpolate(image, size, mode="bicubic").clamp(-1, 1)

    def null(self, code: Tensor) -> Tensor:
        """Return the latent of nothing: zeros."""
        return torch.zeros_like(code)

    def forward(self, code: Tensor, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        """Return the edits of all residual branches at time t; they depend on the code and t alone."""
        features = self.encoder(code, t)
        edits = zip(self.strides.items(), self.modulations, strict=True)
        return Condition(affine={name: modulation(features[stride]) for (name, stride), modulation in edits})

    def layouts(self) -> Sequence[Layout]:
        """Return the layout of the released files, whose modulations normalise first; none without `groups`."""
        named = all(tap.split(".")[1] in ("down", "mid", "up") for tap in self.strides)
        return (released(self.encoder, self.strides),) if self.groups and named else ()


def _require(fits: object, taps: Sequence[Any], shape: Shape) -> None:
    if not fits:
        strides = sorted({tap.stride for tap in taps})
        raise IncompatibleParts(
            "the encoder has no features for some of the denoiser's residual branches",
            where="time-aware-sft",
            expected=f"residual branches (taps res.…) at strides among {', '.join(map(str, shape.strides))}",
            got=f"strides {', '.join(map(str, strides))}" if taps else "a denoiser without such taps",
            remedy="give as many `multipliers` as the denoiser has levels",
        )
