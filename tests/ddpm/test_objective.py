"""The objective of the generate task: what it trains, its value in closed form, and what it refuses."""

import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import nn

from diffloom.autoencoder import Autoencoder, Posterior
from diffloom.denoiser import Denoiser
from diffloom.errors import DiffloomError, IncompatibleParts
from diffloom.noise import Noise
from diffloom.prediction import Prediction
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.system import Plan, System
from diffloom.testing.strategies import Tabled
from diffloom_ddpm.generate import Generate
from diffloom_ddpm.identity import Identity
from diffloom_ddpm.likelihood import bound
from diffloom_ddpm.schedules import Linear
from diffloom_ddpm.weighting import Weight

from .parts import WIDE, Conditioning, Given, Label, Listener, Oracle, Times, four, loss_of, system

LINEAR = Linear(steps=1000)
SHORT = Linear(steps=6, beta_end=0.5)


def at_times(task: Generate, t: torch.Tensor) -> Generate:
    """Return the task with the times said."""
    task.times = Times(t)
    return task


def every_time(**choices: Any) -> tuple[Generate, torch.Tensor, Given]:
    """Return a task, and four items whose moments are exact at each of 1000 levels."""
    x0, noise = four()
    t = torch.arange(1000).repeat_interleave(4)
    eps = noise.values.repeat(1000, 1, 1, 1)
    return at_times(Generate(**choices), t), x0.repeat(1000, 1, 1, 1), Given(eps)


def test_simple_loss_of_gaussian_data_has_its_closed_form() -> None:
    task, x0, noise = every_time()
    found = loss_of(system(Oracle(LINEAR), task, LINEAR), x0, noise)
    assert found.value.item() == pytest.approx(0.173053406084, abs=1e-11)
    assert found.terms["mse"].item() == pytest.approx(0.173053406084, abs=1e-11)


def test_simple_loss_at_one_level_has_its_closed_form() -> None:
    x0, noise = four()
    task = at_times(Generate(), torch.full((4,), 499))
    found = loss_of(system(Oracle(LINEAR), task, LINEAR), x0, noise)
    assert found.value.item() == pytest.approx(0.0208773295463, abs=1e-12)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    kind=st.sampled_from(get_args(Prediction)),
    weight=st.sampled_from([w for w in get_args(Weight) if w != "uniform"]),
    t=st.lists(st.integers(0, 999), min_size=4, max_size=4),
    error=st.floats(-0.5, 0.5),
)
def test_weighted_losses_are_one_for_every_prediction(
    kind: Prediction, weight: Weight, t: list[int], error: float
) -> None:
    x0, noise = four()
    values = []
    for prediction in ("eps", kind):
        task = at_times(Generate(weight=weight), torch.tensor(t))
        denoiser = Oracle(LINEAR, kind=prediction, error=error)
        values.append(loss_of(system(denoiser, task, LINEAR, prediction=prediction), x0, noise).value.item())
    assert values[1] == pytest.approx(values[0], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("kind", get_args(Prediction))
def test_uniform_weight_is_the_plain_error_of_the_output(kind: Prediction) -> None:
    task, x0, noise = every_time()
    found = loss_of(system(Oracle(LINEAR, kind=kind), task, LINEAR, prediction=kind), x0, noise)
    assert torch.equal(found.value, found.terms["mse"])


def test_absolute_errors() -> None:
    built = system(Listener(), at_times(Generate(norm="l1"), torch.tensor([3])), LINEAR)
    x0, noise = torch.full((1, 1, 1, 1), 0.5), Given(torch.full((1, 1, 1, 1), -1.2))
    found = loss_of(built, x0, noise)
    wanted = 0.1 * float(LINEAR.diffuse(x0, 3, noise.values)) + 1.2
    assert found.value.item() == pytest.approx(wanted, rel=1e-6)
    assert found.terms["mse"].item() == pytest.approx(wanted**2, rel=1e-6)


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large", None])
def test_bound_as_a_loss_is_the_bound_without_the_prior(variance: Any) -> None:
    learned = variance is None
    x0, noise = four(0.3)
    denoiser = Oracle(SHORT, mean=0.3, error=0.1)
    if learned:
        denoiser = SpreadOracle(SHORT, mean=0.3, error=0.1)
    t = torch.arange(6).repeat_interleave(4)
    task = at_times(Generate(loss="vlb", variance=variance), t)
    built = system(denoiser, task, SHORT)
    found = loss_of(built, x0.repeat(6, 1, 1, 1), Given(noise.values.repeat(6, 1, 1, 1)))
    whole = bound(built, {"image": x0}, noise, variance=variance or "learned-range", clip=False)
    assert found.value.item() == pytest.approx((whole.total - whole.prior).mean().item(), rel=1e-9)
    assert found.terms["vlb"].item() == found.value.item()


class SpreadOracle(Oracle):
    """An oracle that always says the middle of the two variances."""

    def __init__(self, schedule: Schedule, **choices: Any) -> None:
        super().__init__(schedule, **choices)
        self.out_channels = 2

    def forward(self, *given: Any, **named: Any) -> Any:
        output = super().forward(*given, **named)
        if not isinstance(output, torch.Tensor):
            raise TypeError("no taps are read here")
        return torch.cat([output, torch.zeros_like(output)], 1)


def gradients(loss: str) -> tuple[torch.Tensor, dict[str, float]]:
    denoiser = Listener(out_channels=2)
    built = system(denoiser, at_times(Generate(loss=loss), torch.tensor([0, 1, 5])), SHORT)  # type: ignore[arg-type]
    found = loss_of(built, torch.rand(3, 1, 1, 1), Noise(range(3)))
    torch.autograd.backward(found.value)
    if denoiser.bias.grad is None:
        raise ValueError("the loss reaches nothing")
    return denoiser.bias.grad, {name: float(term) for name, term in found.terms.items()}


def test_bound_in_a_hybrid_loss_trains_the_variance_alone() -> None:
    torch.manual_seed(0)
    hybrid, terms = gradients("hybrid")
    torch.manual_seed(0)
    bound_alone, _ = gradients("vlb")
    plain = Listener()
    torch.manual_seed(0)
    built = system(plain, at_times(Generate(), torch.tensor([0, 1, 5])), SHORT)
    torch.autograd.backward(loss_of(built, torch.rand(3, 1, 1, 1), Noise(range(3))).value)
    if plain.bias.grad is None:
        raise ValueError("the loss reaches nothing")
    torch.testing.assert_close(hybrid[0], plain.bias.grad[0])
    torch.testing.assert_close(hybrid[1], 0.001 * bound_alone[1])
    assert bool((bound_alone != 0).all())
    assert set(terms) == {"mse", "vlb"}


def test_hybrid_loss_adds_its_parts() -> None:
    built = system(Listener(out_channels=2), Generate(loss="hybrid", vlb_weight=0.25), SHORT)
    found = loss_of(built, torch.rand(3, 1, 1, 1), Noise(range(3)))
    wanted = found.terms["mse"] + 0.25 * found.terms["vlb"]
    torch.testing.assert_close(found.value.detach(), wanted)


def test_bound_trains_in_latents_with_a_density() -> None:
    space = Space(1, (1, 1), low=None, high=None)
    task = at_times(Generate(loss="vlb"), torch.tensor([0]))
    built = system(Oracle(SHORT), task, SHORT, space=space)
    x0 = torch.tensor([0.4], dtype=torch.float64).view(1, 1, 1, 1)
    found = loss_of(built, x0, Given(torch.zeros_like(x0)))
    alpha, sigma = float(SHORT.alpha(0)), float(SHORT.sigma(0))
    guess = 0.25 * alpha * alpha * 0.4 / (0.25 * alpha**2 + sigma**2)
    std = float(SHORT.posterior(x0, x0, 1, 0).variance.sqrt())
    wanted = -norm.logpdf(0.4, guess, std) * 6 / math.log(2)
    assert found.value.item() == pytest.approx(wanted, rel=1e-9)


def test_loss_aware_times_learn_in_training_only() -> None:
    task = Generate(loss="vlb", timesteps="loss-aware", schedule=SHORT)
    built = system(Listener(), task, SHORT)
    built.eval()
    loss_of(built, torch.rand(5, 1, 1, 1), Noise(range(5)))
    assert int(task.state_dict()["times.counts"].sum()) == 0
    built.train()
    loss_of(built, torch.rand(5, 1, 1, 1), Noise(range(5)))
    assert int(task.state_dict()["times.counts"].sum()) == 5


@pytest.mark.parametrize("loss", ["simple", "vlb"])
def test_each_items_loss_has_its_importance(loss: Any) -> None:
    x0, noise = four()
    values = []
    for importance in ([1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.5]):
        task = Generate(loss=loss)
        task.times = Times(torch.tensor([0, 2, 3, 5]), importance)
        found = loss_of(system(Oracle(SHORT, error=0.2), task, SHORT), x0, noise)
        assert loss == "simple" or torch.equal(found.terms["vlb"], found.value)
        values.append(found.value.item())
    single = []
    for item, t in enumerate((0, 2, 3, 5)):
        task = at_times(Generate(loss=loss), torch.tensor([t]))
        own = Given(noise.values[item : item + 1])
        single.append(loss_of(system(Oracle(SHORT, error=0.2), task, SHORT), x0[item : item + 1], own).value.item())
    assert values[0] == pytest.approx(sum(single) / 4)
    assert values[1] == pytest.approx(single[0])
    assert values[2] == pytest.approx((2 * single[1] + single[2] + 0.5 * single[3]) / 4)


def test_loss_aware_bound_is_unbiased() -> None:
    """The mean of the weighted terms over p is the mean of the terms over all levels."""
    task = Generate(loss="vlb", timesteps="loss-aware", schedule=SHORT)
    built = system(Oracle(SHORT, error=0.2), task, SHORT)
    x0, noise = four()
    batch = {"image": x0.repeat(6, 1, 1, 1)}
    eps = Given(noise.values.repeat(6, 1, 1, 1))
    t = torch.arange(6).repeat_interleave(4)
    learner = task.times
    task.times = Times(t)
    (objective,) = task.objectives(built)
    plain = objective.loss(batch, eps).value.item()
    for level in range(6):
        for _ in range(10):
            learner.learn(torch.tensor([level]), torch.tensor([1.0 + level]))
    p = learner.probabilities()  # type: ignore[operator]
    whole = bound(built, {"image": x0}, noise, clip=False)
    importance = {int(d): float(w) for d, w in zip(*learner(Noise(range(300)), 6, t.device), strict=True)}
    mean = sum(float(p[i]) * importance[i] * 6 * whole.terms[:, i].mean().item() for i in range(6))
    assert mean == pytest.approx(plain, rel=1e-9)


def test_only_denoiser_and_conditioners_are_trained_under_stable_names() -> None:
    label = Label()
    label.listener = Listener()
    denoiser = label.listener
    built = system(denoiser, Generate(), LINEAR, digit=(label, Conditioning()))
    (objective,) = built.task.objectives(built)
    assert objective.name == "denoise"
    assert list(objective.parameters) == ["denoiser.weight", "denoiser.bias", "conditioners.digit.scale"]


def test_dropped_conditions_are_the_null() -> None:
    batch = {"label": torch.arange(200.0)}
    listener = Listener()
    built = system(listener, Generate(), LINEAR, digit=(Label(), Conditioning(drop=0.25)))
    loss_of(built, torch.zeros(200, 1, 1, 1), Noise(range(200)), **batch)
    (condition,) = listener.heard
    if condition is None or condition.vector is None:
        raise ValueError("nothing was said")
    told = condition.vector.flatten()
    kept = told == batch["label"]
    assert bool((told[~kept] == -1).all())
    assert 25 < int((~kept).sum()) < 75


@pytest.mark.parametrize("timesteps", ["uniform", "continuous"])
def test_an_item_has_its_loss_in_any_batch(timesteps: Any) -> None:
    built = system(Listener(), Generate(timesteps=timesteps), LINEAR)
    images = torch.rand(5, 1, 1, 1)
    whole = loss_of(built, images, Noise(range(5))).value
    each = [loss_of(built, images[i : i + 1], Noise([i])).value for i in range(5)]
    torch.testing.assert_close(whole, torch.stack(each).mean())


class Halving(Autoencoder):
    """z = x/2, with a posterior that draws, and a weight that the task must leave alone."""

    stride, latent_channels, bounded = 1, 1, True

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(x * self.factor, torch.full_like(x, -30.0))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z / self.factor


def test_autoencoder_encodes_decodes_and_is_not_trained() -> None:
    autoencoder, task = Halving(), at_times(Generate(), torch.tensor([0, 0]))
    listener = Listener()
    built = System(
        Plan(WIDE),
        autoencoder=autoencoder,
        task=task,
        schedule=LINEAR,
        denoiser=listener,
        sampler=system(listener, task, LINEAR).sampler,
    )
    images, noise = torch.tensor([0.8, -0.2]).view(2, 1, 1, 1), Given(torch.zeros(2, 1, 1, 1))
    found = loss_of(built, images, noise)
    torch.autograd.backward(found.value)
    assert autoencoder.factor.grad is None
    assert found.value.item() == pytest.approx(0.01 * 0.9999 * (0.16 + 0.01) / 2, rel=1e-5)
    sampled = built.predict({}, seeds=[1, 2, 3])["image"]
    latents = built.walk({}, Noise([1, 2, 3], scope=("predict",)))
    torch.testing.assert_close(sampled, (2 * latents).clamp(-1, 1))
    assert float(sampled.abs().max()) <= 1


@pytest.mark.parametrize(
    ("choices", "channels", "words"),
    [
        ({"loss": "simple"}, 2, "nothing would train it"),
        ({"loss": "vlb", "variance": "fixed-small"}, 2, "nothing would train it"),
        ({"loss": "hybrid"}, 1, "denoiser gives none"),
        ({"loss": "vlb", "variance": "learned-range"}, 1, "denoiser gives none"),
        ({"loss": "simple"}, 3, "does not fit what is diffused"),
    ],
)
def test_losses_that_do_not_fit_the_denoiser_are_refused(choices: dict[str, Any], channels: int, words: str) -> None:
    built = system(Listener(out_channels=channels), Generate(**choices), LINEAR)
    with pytest.raises(IncompatibleParts, match=words) as caught:
        built.task.objectives(built)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("choices", "where"),
    [
        ({"norm": "l1", "weight": "p2"}, "task.norm"),
        ({"loss": "vlb", "timesteps": "continuous"}, "task.timesteps"),
        ({"timesteps": "loss-aware"}, "task.timesteps"),
        ({"gamma": 5.0}, "task.gamma"),
    ],
)
def test_choices_that_exclude_each_other_are_refused(choices: dict[str, Any], where: str) -> None:
    with pytest.raises(DiffloomError) as caught:
        Generate(**choices)
    assert caught.value.where == where
    assert caught.value.remedy


def test_noise_prediction_is_refused_where_no_signal_is_left() -> None:
    sigma = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    schedule = Tabled(alpha=1 - sigma, sigma=sigma)
    built = system(Listener(), Generate(), schedule)
    with pytest.raises(IncompatibleParts, match="zero SNR"):
        built.task.objectives(built)
    fine = system(Listener(), at_times(Generate(weight="min-snr"), torch.tensor([2])), schedule, prediction="v")
    assert bool(torch.isfinite(loss_of(fine, torch.rand(1, 1, 1, 1), Noise([0])).value))


@pytest.mark.parametrize("timesteps", ["uniform", "antithetic", "loss-aware", "continuous", "cubic"])
@pytest.mark.parametrize("loss", ["simple", "hybrid"])
def test_losses_can_be_pretended_without_memory(timesteps: Any, loss: Any) -> None:
    if loss == "hybrid" and timesteps == "continuous":
        return
    space = Space(1, (2, 2))
    with torch.device("meta"):
        denoiser: Denoiser = Listener(out_channels=2 if loss == "hybrid" else 1)
        task = Generate(loss=loss, timesteps=timesteps, schedule=LINEAR)
    built = System(Plan(space), autoencoder=Identity(space=space), task=task, schedule=LINEAR, denoiser=denoiser)
    found = loss_of(built, torch.zeros(3, 1, 2, 2, device="meta"), Noise(range(3)))
    assert found.value.shape == ()
    assert found.value.device.type == "meta"
