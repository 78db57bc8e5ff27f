"""The side network beside diffusers' ControlNet whose norms are replaced as the release of CRS-Diff replaces them."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffloom.condition import Condition
from diffloom.vision_compat import ensure_torchvision
from diffloom_crs.fusion import Fusion
from diffloom_crs.local_controls import LocalControls
from tests.crs.parts import latents, maps, shaken
from tests.unet.parity import LATENT, pair

CONFIG: dict[str, Any] = {
    **LATENT, "channels": 32, "multipliers": (1, 2), "blocks": 2, "attention": (16,), "heads": 2, "context": 6,
    "groups": 8,
}  # fmt: skip


class Replaced(nn.Module):
    """GN(h + V softmax(QᵀK)) (1 + γ(f)) + β(f), written out with the whole matrix."""

    def __init__(self, part: Fusion, features: Tensor) -> None:
        super().__init__()
        self.part, self.features = part, features

    def forward(self, h: Tensor) -> Tensor:
        attention = self.part.attention
        if attention is not None:
            q, k, v = (conv(h).flatten(2) for conv in (attention.query, attention.key, attention.value))
            h = h + (v @ torch.softmax(q.transpose(1, 2) @ k, -1).transpose(1, 2)).view_as(h)
        assert self.part.scale is not None
        normed = nn.GroupNorm(self.part.groups, h.shape[1], affine=False)(h)
        out: Tensor = normed * (1 + self.part.scale(self.features)) + self.part.shift(self.features)
        return out


def silenced(part: nn.Module) -> None:
    for parameter in part.parameters():
        parameter.zero_()


def replaced(theirs: Any, part: LocalControls, features: dict[int, Tensor]) -> None:
    fusions: Iterator[Any] = iter(part.fusions)
    for level, block in enumerate(theirs.down_blocks):
        for name in ("norm1", "norm2"):
            setattr(block.resnets[0], name, Replaced(next(fusions), features[2**level]))


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["enhanced", "denormalise"])
def test_shifts_are_those_of_a_controlnet_with_replaced_norms(fusion: Any) -> None:
    ensure_torchvision()
    from diffusers import ControlNetModel

    ours, unet = pair(16, 4, **CONFIG)
    part: LocalControls = LocalControls(
        maps={key: {"channels": 1} for key in maps()},  # type: ignore[misc]  # as a recipe says it
        widths=(8, 12),
        narrow=(4, 6, 8),
        fusion=fusion,
        denoiser=ours,
        autoencoder=latents(4),
        space=ours.space,
    )
    for side in (part.extractor, part.fusions, part.shifts):
        shaken(side, 0.1)
    part.eval()
    theirs: Any = ControlNetModel.from_unet(unet).eval()
    theirs.controlnet_cond_embedding.apply(silenced)
    outputs = (*theirs.controlnet_down_blocks, theirs.controlnet_mid_block)
    for output, shift in zip(outputs, part.shifts, strict=True):
        output.load_state_dict(shift.state_dict())
    batch = maps(side=64)
    features = dict(part.extractor(part.encode(batch)["maps"]))
    replaced(theirs, part, features)

    x, t, context = torch.randn(2, 4, 16, 16), torch.tensor(321), torch.randn(2, 5, 6)
    said = part(part.encode(batch), x, t, Condition(context=context)).affine
    down, mid = theirs(x, t, context, torch.zeros(2, 3, 128, 128), return_dict=False)
    assert len(said) == len(down) + 1
    for edit, wanted in zip(said.values(), (*down, mid), strict=True):
        torch.testing.assert_close(edit.shift, wanted, atol=1e-4, rtol=1e-4)

    told = Condition(context=context)
    wanted = unet(x, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    got = ours(x, t, told | Condition(affine=said))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
