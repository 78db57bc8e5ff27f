"""A very small network learns two images by heart."""

import pytest
import torch

from diffloom.noise import Noise, mix
from diffloom.space import Space
from diffloom_ddpm.generate import Generate
from diffloom_ddpm.schedules import Cosine
from diffloom_unet import UNet

from .parts import loss_of, system


def mean(history: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(figures[name] for figures in history) / len(history) for name in history[0]}


@pytest.mark.parametrize(("prediction", "variance"), [("eps", "fixed"), ("v", "learned")])
def test_loss_falls_far_on_two_images(prediction: str, variance: str) -> None:
    torch.manual_seed(0)
    space = Space(1, (8, 8))
    schedule = Cosine(steps=100)
    learned = variance == "learned"
    denoiser = UNet(space=space, channels=16, multipliers=(1, 2), blocks=1, groups=8, variance=variance)  # type: ignore[arg-type]
    task = Generate(loss="hybrid" if learned else "simple", timesteps="antithetic")
    built = system(denoiser, task, schedule, space=space, prediction=prediction)  # type: ignore[arg-type]
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    patterns = torch.stack([(rows + columns) % 2 * 2.0 - 1, (columns >= 4) * 2.0 - 1])
    images = patterns[:, None].repeat(8, 1, 1, 1)
    optimizer = torch.optim.Adam(next(iter(task.objectives(built))).parameters.values(), lr=4e-3)
    history = []
    for step in range(100):
        noise = Noise([mix(step, item) for item in range(len(images))])
        loss = loss_of(built, images, noise)
        optimizer.zero_grad()
        torch.autograd.backward(loss.value)
        optimizer.step()
        history.append({name: float(value) for name, value in loss.terms.items()})
    first, last = mean(history[:5]), mean(history[-20:])
    assert first["mse"] > 0.8
    assert last["mse"] < 0.3 * first["mse"]
    if learned:
        assert last["vlb"] < 0.5 * first["vlb"]
