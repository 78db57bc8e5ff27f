"""Stage two: features of a frozen denoiser, read once; a head that learns; modalities that are missing."""

import copy
from typing import Any

import pytest
import torch

from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.testing.strategies import Tabled
from diffloom_ddpm.schedules import Cosine, Linear
from diffloom_fusion.blend import grey
from diffloom_fusion.features import chosen, extract, padded, times
from diffloom_fusion.fuse import Fuse
from diffloom_fusion.held import held
from diffloom_fusion.kept import Kept, view
from tests.fusion.parts import SPACE, Counting, scene, system, task_of


@pytest.mark.parametrize(
    ("schedule", "stds"),
    [
        (Linear(steps=2000, beta_start=1e-6, beta_end=1e-2), (0.0074, 0.0153, 0.0311, 0.0785, 0.1567)),
        (Cosine(steps=2000), (0.0106, 0.0160, 0.0251, 0.0499, 0.0894)),
    ],
)
def test_the_noise_of_the_paper_s_times(schedule: Schedule, stds: tuple[float, ...]) -> None:
    counted_from_one = (5, 10, 20, 50, 100)
    found = [round(float(schedule.sigma(t - 1)), 4) for t in counted_from_one]
    assert found == list(stds)


def test_drawn_times_lie_between_their_own_and_the_one_before() -> None:
    noise, schedule, steps = Noise(range(200)), Cosine(steps=2000), (0, 4, 99)
    assert times(noise, steps, "exact").tolist() == [list(steps)] * 200
    drawn = schedule.alpha(times(noise, steps, "between"))
    low, high = schedule.alpha(torch.tensor(steps)), schedule.alpha(torch.tensor(steps) - 1)
    assert high[0] == 1
    assert ((drawn >= low) & (drawn <= high)).all()
    assert (drawn.std(0) > 0).all()


def test_modalities_are_joined_in_order_and_what_is_missing_is_grey() -> None:
    task, given = task_of(system()), scene()
    joint = task.joint(given)
    assert joint.shape == (2, 4, 32, 32)
    assert torch.equal(joint[:, :3], given["visible"])
    assert torch.equal(joint[:, 3:], given["infrared"])
    alone = task.joint({"infrared": given["infrared"]})
    assert torch.equal(alone, torch.cat([torch.zeros(2, 3, 32, 32), given["infrared"]], 1))


def test_the_times_of_an_image_are_read_in_one_batch() -> None:
    built = system()
    images = task_of(built).joint(scene())
    noise, t = Noise([3, 4]), torch.tensor([[4, 49]]).expand(2, -1)
    names = [tap.name for tap in chosen(built.denoiser, None)]
    maps = extract(built, images, names, t, noise)
    counting = built.denoiser
    assert isinstance(counting, Counting)
    assert counting.asked == [4]
    assert [tuple(maps[name].shape) for name in names] == [(2, 2 * 16, 16, 16), (2, 2 * 8, 32, 32)]
    assert not any(values.requires_grad for values in maps.values())
    by_hand = []
    for n, step in enumerate((4, 49)):
        x_t = built.schedule.diffuse(images, step, noise.normal(images, "features", n))
        by_hand.append(built.denoiser(x_t, torch.full((2,), step), read=names)[1][names[1]])
    assert torch.allclose(maps[names[1]], torch.cat(by_hand, 1), atol=1e-5)


def test_the_denoiser_stays_as_it_was_while_the_head_learns() -> None:
    built = system(keep=0.0)
    before = copy.deepcopy(built.denoiser.state_dict())
    (objective,) = built.task.objectives(built)
    assert not any(p.requires_grad for p in built.denoiser.parameters())
    assert set(objective.parameters) == {f"head.{name}" for name, _ in task_of(built).head.named_parameters()}
    built.train()
    assert not built.denoiser.training
    optimiser = torch.optim.Adam(objective.parameters.values(), 1e-2)
    objective.loss(scene(), Noise([0, 1])).value.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in built.denoiser.state_dict().items())
    assert all(p.grad is not None and p.grad.any() for n, p in objective.parameters.items() if n.endswith("weight"))


def test_what_was_seen_is_not_asked_again_and_is_the_same_to_the_bit() -> None:
    kept, anew = system(), system(keep=1e-6)
    counting = kept.denoiser
    assert isinstance(counting, Counting)
    (objective,), batch = kept.task.objectives(kept), scene(3)
    first = objective.loss(batch, Noise([0, 1, 2])).value
    assert counting.asked == [2, 2, 2]
    swapped = {key: image[[2, 0, 1]] for key, image in batch.items()}
    again = objective.loss(swapped, Noise([7, 8, 9])).value
    assert counting.asked == [2, 2, 2]
    assert task_of(kept).kept.hits == 3
    assert torch.allclose(first, again, atol=1e-6)
    others = anew.task.objectives(anew)[0]
    assert torch.equal(others.loss(batch, Noise([5, 6, 7])).value, first)
    assert torch.equal(others.loss(batch, Noise([5, 6, 7])).value, first)
    assert task_of(anew).kept.hits == 0  # there was no room


def test_what_is_kept_has_a_limit_and_views_are_told_apart() -> None:
    kept = Kept(100)
    kept.keep("a", {"x": torch.zeros(20)})
    kept.keep("b", {"x": torch.zeros(20)})
    assert (kept.find("a") is not None, kept.find("b"), kept.size) == (True, None, 80)
    image = scene()["visible"][0]
    other = image.clone()
    other[0, 0, 0] += 1e-6
    assert view(image) == view(image.clone())
    assert len({view(image), view(other), view(image.flatten()[None, None])}) == 3


def test_an_image_depends_on_its_seed_and_without_noise_on_none() -> None:
    built, batch = system(), scene()
    one, same, other = (built.predict(batch, seeds=seeds)["image"] for seeds in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(one, same)
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])
    log_snr = torch.linspace(70, 60, 100, dtype=torch.float64)
    silent = system(Tabled(alpha=log_snr.sigmoid().sqrt(), sigma=(-log_snr).sigmoid().sqrt()))
    found = [silent.predict(batch, seeds=seeds)["image"] for seeds in ((1, 2), (3, 4))]
    assert torch.allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (6, 70), (1, 5)])
@pytest.mark.parametrize("output", ["colour", "mix"])
def test_images_of_any_size_are_fused_whole(size: tuple[int, int], output: str) -> None:
    batch = scene(size=size)
    found = system(output=output).predict(batch, seeds=[0, 1])["image"]
    assert found.shape == batch["visible"].shape
    assert found.abs().max() <= 1


def test_padding_mirrors_and_leaves_the_image_where_it_is() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    grown = padded(image, 8)
    assert grown.shape == (1, 1, 8, 8)
    assert torch.equal(grown[..., :3, :4], image)
    assert grown[0, 0, 0].tolist() == [0, 1, 2, 3, 2, 1, 0, 1]
    assert padded(image, 1) is image


def test_mixing_keeps_colours_and_stays_between_what_was_there() -> None:
    batch = {key: image * 0.4 for key, image in scene().items()}
    found = system(output="mix").predict(batch, seeds=[0, 1])["image"]
    visible, infrared = batch["visible"], batch["infrared"]
    assert torch.allclose(found - grey(found), visible - grey(visible), atol=1e-5)
    low, high = torch.minimum(grey(visible), infrared), torch.maximum(grey(visible), infrared)
    assert (grey(found) >= low - 1e-5).all()
    assert (grey(found) <= high + 1e-5).all()


def test_sharp_weights_decide_every_pixel() -> None:
    batch = {key: image * 0.4 for key, image in scene().items()}
    found = grey(system(output="mix", sharpness=1e9).predict(batch, seeds=[0, 1])["image"])
    nearest = torch.minimum((found - grey(batch["visible"])).abs(), (found - batch["infrared"]).abs())
    assert nearest.max() < 1e-5


def test_weights_are_exact_at_the_ends_and_only_gradients_that_lead_back_pass() -> None:
    weights = torch.tensor([-0.5, 0.0, 0.3, 1.0, 7.0], requires_grad=True)
    assert held(weights).tolist() == pytest.approx([0, 0, 0.3, 1, 1])
    for direction, passed in ((1.0, [0, 0, 1, 1, 1]), (-1.0, [-1, -1, -1, 0, 0])):
        (found,) = torch.autograd.grad((held(weights) * direction).sum(), weights)
        assert found.tolist() == passed


def test_without_the_other_modality_a_mixture_is_the_first() -> None:
    built, batch = system(output="mix"), scene()
    alone = built.predict({"visible": batch["visible"]}, seeds=[0, 1])["image"]
    assert torch.allclose(alone, batch["visible"], atol=1e-6)
    dark = built.predict({"infrared": batch["infrared"]}, seeds=[0, 1])["image"]
    assert torch.allclose(dark, batch["infrared"].expand(-1, 3, -1, -1), atol=1e-6)


def test_training_without_a_modality_asks_for_what_is_left() -> None:
    built = system(drop={"infrared": 0.999}, gradient=0.0, keep=0.0)
    task, batch = task_of(built), scene()
    (objective,) = task.objectives(built)
    wanted = built.predict({"visible": batch["visible"]}, seeds=[0, 1])["image"]
    assert not torch.equal(wanted, built.predict(batch, seeds=[0, 1])["image"])
    value = objective.loss(batch, Noise([0, 1], scope=("predict",))).value
    assert value.item() == pytest.approx(float((wanted - batch["visible"]).abs().mean()), abs=1e-5)
    both = system(drop={"infrared": 0.5, "visible": 0.5})
    present = task_of(both)._present(batch, Noise(range(2000)))
    rates = [float(there.double().mean()) for there in present.values()]
    assert torch.stack(list(present.values())).any(0).all()
    assert rates == pytest.approx([0.75, 0.5], abs=0.05)  # who has neither keeps the first


def test_the_head_learns_more_than_the_mean_within_a_few_hundred_steps() -> None:
    built, batch = system(), scene(1)
    task = task_of(built)
    (objective,) = task.objectives(built)
    mean = (batch["visible"] + batch["infrared"]) / 2
    values = task._terms(mean, batch)
    plain = float(sum(value.mean() for value in values.values()))
    optimiser = torch.optim.Adam(objective.parameters.values(), 5e-3)
    for _ in range(150):
        loss = objective.loss(batch, Noise([0])).value
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(loss.detach()) < 0.7 * plain


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"intensity": 0.0, "gradient": 0.0}, "weights of 0 alone"),
        ({"taps": ("up.9",)}, "no tap 'up.9'"),
        ({"taps": ("up.0", "up.1")}, "one tap of each stride"),
        ({"drop": {"radar": 0.1}}, "task.drop"),
        ({"modalities": ("a", "b", "c", "d", "e")}, "task.modalities"),
    ],
)
def test_what_does_not_fit_is_refused(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(IncompatibleParts, match=said):
        Fuse(denoiser=Counting(), space=SPACE, **choices)


def test_an_exchanged_order_is_refused() -> None:
    class Known:
        modalities = {"infrared": 1, "visible": 3}  # noqa: RUF012  # a stand-in

    dataset: Any = Known()
    assert Fuse(denoiser=Counting(), space=SPACE, dataset=dataset).modalities == ("infrared", "visible")
    with pytest.raises(IncompatibleParts, match="infrared, visible, as the data set has them"):
        Fuse(denoiser=Counting(), space=SPACE, dataset=dataset, modalities=("visible", "infrared"))
    with pytest.raises(IncompatibleParts, match="5 channels together"):
        Fuse(denoiser=Counting(), space=Space(5, (32, 32)), dataset=dataset)
    with pytest.raises(IncompatibleParts, match="channels that the denoiser learned"):
        task_of(system()).joint({"visible": torch.zeros(1, 1, 8, 8)})
