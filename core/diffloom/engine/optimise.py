"""Optimise: one optimiser per objective, its state as plain tensors, the rate as a function of the step."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffloom.conditioner import Batch
from diffloom.noise import Noise
from diffloom.recipe.settings import TrainSettings
from diffloom.task import Loss, Objective


class ObjectiveModule(nn.Module):
    """An objective as a module whose parameters are exactly those that it trains.

    Data-parallel wrappers see these parameters and no others, so several objectives can share a system.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.loss: Callable[[Batch, Noise], Loss] = objective.loss
        self.names = tuple(objective.parameters)
        for i, parameter in enumerate(objective.parameters.values()):
            self.register_parameter(f"p{i}", parameter)

    def forward(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its terms."""
        loss = self.loss(batch, noise)
        return loss.value, dict(loss.terms)


def make(parameters: Mapping[str, nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Return the optimiser that a recipe asks for."""
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return kind(
        list(parameters.values()),
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=all(p.device.type in ("cpu", "cuda") for p in parameters.values()),
    )


def rate(step: int, settings: TrainSettings) -> float:
    """Return the learning rate of a step (counted from 0): linear warm-up, then constant, cosine or linear."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    share = max(0, step - settings.warmup) / max(1, settings.steps - settings.warmup)
    fall = {"none": 1.0, "linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share))}[settings.decay]
    return settings.lr * warm * fall


def state_of(optimizer: torch.optim.Optimizer, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return an optimiser's state as `parameter/quantity` → tensor."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{names[index]}/{quantity}": torch.as_tensor(value)
        for index, quantities in state.items()
        for quantity, value in quantities.items()
    }


def restore(optimizer: torch.optim.Optimizer, names: tuple[str, ...], tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back the state that `state_of` returned, each moment in its parameter's memory layout.

    A fused optimiser walks through memory, so a moment that lay otherwise would meet the wrong weights.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, quantity = key.rpartition("/")
        index = names.index(name)
        same = tensor.shape == parameters[index].shape
        laid = torch.empty_like(parameters[index]).copy_(tensor) if same else tensor
        state.setdefault(index, {})[quantity] = laid.detach()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
