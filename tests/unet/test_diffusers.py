"""Our outputs are diffusers' on equal weights, in every configuration that it can express."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffloom.condition import Condition
from tests.unet.parity import LATENT, pair

SMALL: dict[str, Any] = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "groups": 8, "attention": (16, 8)}

PLAIN: dict[str, dict[str, Any]] = {
    "ddpm": {"channels": 32, "attention": (16,), "groups": 8},
    "adm": {**LATENT, "channels": 32, "attention": (16, 8), "head_width": 16, "groups": 16},
    "wide": {"channels": 96, "multipliers": (1, 2), "blocks": 1, "variance": "learned"},
    "scale and shift": {**LATENT, "channels": 64, "multipliers": (1, 2), "scale_shift": True},
    "residual": {**LATENT, **SMALL, "multipliers": (1, 2, 2), "attention": (16,), "resampling": "residual"},
    "churches": {**LATENT, **SMALL, "resampling": "residual", "scale_shift": True, "head_width": 8, "concat": 2},
}
TOLD: dict[str, dict[str, Any]] = {
    "heads by count": {**LATENT, **SMALL, "heads": 4, "context": 24},
    "heads by width": {**LATENT, **SMALL, "head_width": 16, "context": 24},
    "attention in the middle only": {**LATENT, **SMALL, "attention": (), "heads": 2, "context": 24},
    "deep": {**LATENT, **SMALL, "heads": 2, "context": 24, "depth": (1, 3), "attention": (8,)},
    "vector": {**LATENT, **SMALL, "context": 24, "vector": 20, "scale_shift": True},
    "concat": {**SMALL, "context": 24, "concat": 5, "padding": "symmetric"},
}


def close(ours: Tensor, theirs: Tensor) -> bool:
    assert theirs.std() > 0.1
    return bool((ours - theirs).abs().max() < 1e-4 * theirs.abs().max())


@pytest.mark.parametrize("name", list(PLAIN))
@pytest.mark.parametrize("bands", [1, 3])
def test_without_a_context(name: str, bands: int) -> None:
    config = PLAIN[name]
    ours, theirs = pair(16 if "groups" in config and "blocks" in config else 32, bands, **config)
    size = ours.space.size[0]
    x, t = torch.randn(2, bands, size, size), torch.tensor([3, 700])
    beside = torch.randn(2, ours.ports.concat, size, size)
    told = Condition(concat=beside) if ours.ports.concat else None
    with torch.no_grad():
        joined = torch.cat([x, beside], 1)
        expected = theirs(joined, t).sample
        assert close(ours(x, t, told), expected)
        assert close(ours(x, torch.tensor(3), told), theirs(joined, 3).sample)
    assert close(ours(x, t, told), expected)


@pytest.mark.parametrize("name", list(TOLD))
def test_with_a_context(name: str) -> None:
    ours, theirs = pair(16, 4, **TOLD[name])
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([3, 700])
    ports, beside = ours.ports, torch.randn(2, ours.ports.concat, 16, 16)
    context = torch.randn(2, 7, ports.context)
    vector = torch.randn(2, ports.vector) if TOLD[name].get("vector") else None
    told = Condition(context=context, vector=vector, concat=beside if ports.concat else None)

    def answer(t: Tensor, mask: Tensor | None = None) -> Tensor:
        joined = torch.cat([x, beside], 1)
        answered: Tensor = theirs(joined, t, context, class_labels=vector, encoder_attention_mask=mask).sample
        return answered

    with torch.no_grad():
        assert close(ours(x, t, told), answer(t))
        assert close(ours(x, torch.tensor(3), told), answer(torch.tensor(3)))
        assert close(ours(x, t, ours.prepare(told)), answer(t))
        mask = torch.tensor([[True] * 4 + [False] * 3, [True] + [False] * 6])
        assert close(ours(x, t, replace(told, context_mask=mask)), answer(t, mask))
        assert close(ours(x, t, ours.prepare(replace(told, context_mask=mask))), answer(t, mask))
        assert not close(ours(x, t, replace(told, context_mask=mask)), answer(t))
    assert close(ours(x, t, told), answer(t))
