"""What all restorations share, translation by strength, and consistent enlargement."""

from typing import Any

import pytest
import torch

from diffloom.condition import Ports
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.sampler import State
from diffloom.system import System
from diffloom.task import Loss, Task
from diffloom.testing.oracles import PointMass
from diffloom_ddim.sampler import DDIM
from diffloom_ddpm.generate import Generate
from diffloom_ldm.conditioners.image import Image
from diffloom_ldm.conditioners.mask import Mask
from diffloom_ldm.tasks.autoencode import Autoencode
from diffloom_ldm.tasks.inpaint import Inpaint
from diffloom_ldm.tasks.super_resolution import SuperResolution, resized
from diffloom_ldm.tasks.translate import Translate
from tests.ldm.conditioners.parts import Quarter
from tests.ldm.tasks.parts import PATH, Exact, asked, images, point, system


def loss(task: Task, **learned: Any) -> Loss:
    (objective,) = (built := system(task, point())).task.objectives(built)
    assert objective.name == "denoise"
    assert list(objective.parameters) == ["denoiser.weight"]
    return objective.loss({"image": images(5), "mask": torch.zeros(5, 1, 4, 4)}, Noise(range(5)))


@pytest.mark.parametrize("make", [Inpaint, SuperResolution, Translate])
def test_a_restoration_learns_as_the_task_that_it_names(make: Any) -> None:
    assert torch.equal(loss(make()).value, loss(Generate()).value)
    absolute = loss(make(objective=Generate(norm="l1")))
    assert torch.equal(absolute.value, loss(Generate(norm="l1")).value)
    assert not torch.equal(absolute.value, loss(Generate()).value)
    assert make().paired
    assert "image" in make().needs


def test_times_that_remember_losses_are_trained_and_saved_with_a_restoration() -> None:
    task = Inpaint(objective=Generate(timesteps="loss-aware", schedule=PATH))
    built = system(task, point()).train()
    (objective,) = task.objectives(built)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    objective.loss({"image": images(5)}, Noise(range(5)))
    assert before
    assert any(not torch.equal(value, before[name]) for name, value in task.state_dict().items())


# --- translation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strength", "steps"), [(0.75, 37), (1.0, 50), (0.999, 49), (0.0, 0)])
def test_the_published_numbers_of_steps_by_strength(strength: float, steps: int) -> None:
    built = system(Translate(strength=strength), point(), sampler=DDIM(steps=50))
    built.predict({"image": images(2)}, seeds=[0, 1])
    assert asked(built) == built.sampler.grid(PATH).t.tolist()[50 - steps :]


def test_no_strength_returns_the_autoencoder_s_reconstruction() -> None:
    built = system(Translate(strength=0.0), Exact(PointMass(PATH, 0.0)), size=(16, 16), autoencoder=Quarter())
    given = images(2, 16, 3)
    expected = built.autoencoder.decode(built.autoencoder.encode(given).mode())
    assert torch.equal(built.predict({"image": given}, seeds=[0, 1])["image"], expected)
    assert not asked(built)


def test_a_walk_begins_at_the_noised_source() -> None:
    network = point()
    built = system(Translate(source="pre", strength=0.5), network, sampler=DDIM(steps=10))
    pre = images(3)
    states: list[State] = []
    noise = Noise(range(3), scope=("predict",))
    with built.observed(states.append):
        built.predict({"pre": pre}, seeds=range(3))
    assert len(states) == 5
    level = built.sampler.grid(PATH).levels[5]
    begin = level.alpha * pre + level.sigma * noise.normal(pre, "start")
    again = built.sampler.step(built.model({}), PATH, built.sampler.grid(PATH), State(begin, 5), None)
    torch.testing.assert_close(states[0].x, again.x)


def test_less_strength_stays_closer_to_the_source() -> None:
    """For a network that knows nothing of the source, what is left of it falls with the noise that is added."""
    given = images(64)

    def likeness(strength: float) -> float:
        from diffloom.testing.oracles import DiagonalGaussian

        built = system(Translate(strength=strength), Exact(DiagonalGaussian(PATH, 0.0, 0.5)), sampler=DDIM(steps=50))
        made = built.predict({"image": given}, seeds=range(64))["image"]
        return float(torch.corrcoef(torch.stack([made.flatten(), given.flatten()]))[0, 1])

    found = [likeness(strength) for strength in (0.1, 0.4, 0.7, 1.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.95
    assert abs(found[-1]) < 0.15


def test_paired_translation_begins_from_noise_and_is_told_the_source() -> None:
    network = Exact(PointMass(PATH, 0.3), ports=Ports(concat=1))
    built = system(Translate(source="pre", strength=None), network, conditioners={})
    shown = Image(key="pre", autoencoder=built.autoencoder, denoiser=network)
    built = system(Translate(source="pre", strength=None), network, conditioners={"pre": shown})
    assert built.task.told == ("pre",)
    pre = images(2)
    built.predict({"pre": pre}, seeds=[0, 1])
    assert len(network.asked) == 20
    assert network.heard[0] is not None
    assert network.heard[0].concat is not None
    assert torch.equal(network.heard[0].concat, pre)


# --- super-resolution ------------------------------------------------------------------------------------------------


def enlarged(consistent: int) -> tuple[torch.Tensor, torch.Tensor]:
    built = system(SuperResolution(consistent=consistent), point(), size=(16, 16))
    low = resized(images(2, 16), torch.zeros(1, 1, 4, 4)) * 0.5
    return built.predict({"low_res": low}, seeds=[0, 1])["image"], low


def test_an_answer_is_brought_to_agree_with_what_was_given() -> None:
    def disagreement(consistent: int) -> float:
        made, low = enlarged(consistent)
        return float((resized(made, low) - low).abs().max())

    found = [disagreement(count) for count in (0, 1, 4)]
    assert found[1] < 0.25 * found[0]
    assert found[2] < 0.25 * found[1]
    made, _ = enlarged(0)
    torch.testing.assert_close(made, torch.full_like(made, 0.3), atol=2e-2, rtol=0)


def test_noise_of_augmentation_is_drawn_in_training_and_in_sampling() -> None:
    network = Exact(PointMass(PATH, 0.3), ports=Ports(concat=1, vector=4))
    plain = system(Generate(), network)
    part = Image(noise=30, level=30, autoencoder=plain.autoencoder, denoiser=network, schedule=PATH)
    built = system(SuperResolution(), network, size=(8, 8), conditioners={"small": part})
    low = images(2, 8)
    built.predict({"low_res": low}, seeds=[0, 1])
    shown = [told.concat for told in network.heard if told is not None and told.concat is not None]
    assert len(shown) == 20
    assert all(torch.equal(one, shown[0]) for one in shown)
    eps = (shown[0] - PATH.alpha(30).float() * low) / PATH.sigma(30).float()
    assert float(eps.std()) == pytest.approx(1, abs=0.2)
    network.heard.clear()
    (objective,) = built.train().task.objectives(built)
    objective.loss({"image": images(2, 8), "low_res": low}, Noise([0, 1]))
    assert network.heard[0] is not None
    assert network.heard[0].concat is not None
    assert not torch.equal(network.heard[0].concat, low)


# --- residuals -------------------------------------------------------------------------------------------------------


def shown_low(task: SuperResolution, network: Exact) -> System:
    return system(task, network, size=(16, 16))


def test_a_network_that_knows_nothing_answers_with_the_guess() -> None:
    low = images(3, 4)
    built = shown_low(SuperResolution(residual=0.2), point(0.0))
    made = built.predict({"low_res": low}, seeds=range(3))["image"]
    assert torch.equal(made, SuperResolution().guesses()["bicubic"]({"low_res": low}, (16, 16)))

    mask = torch.zeros(3, 1, 4, 4)
    mask[..., 1:3] = 1
    told = {"image": images(3), "mask": mask}
    filled = system(Inpaint(residual=0.3), point(0.0)).predict(told, seeds=range(3))["image"]
    assert torch.equal(filled, Inpaint().guesses()["mean-fill"](told, (4, 4)))


def test_an_answer_is_the_guess_and_so_much_of_what_was_made() -> None:
    low = images(2, 4) * 0.5
    made = shown_low(SuperResolution(residual=0.2), point(1.5)).predict({"low_res": low}, seeds=[0, 1])["image"]
    guess = SuperResolution().guesses()["bicubic"]({"low_res": low}, (16, 16))
    torch.testing.assert_close(made, (guess + 0.3).clamp(-1, 1), atol=1e-5, rtol=0)


def test_what_is_learned_is_what_the_guess_lacks_at_unit_size() -> None:
    """The loss is that of `generate` on (x − g) / r, with the same noise."""
    image, low = images(5, 16), images(5, 4, seed=1)
    built = shown_low(SuperResolution(residual=0.25), point())
    found = built.task.objectives(built)[0].loss({"image": image, "low_res": low}, Noise(range(5)))
    lacking = (image - SuperResolution().guesses()["bicubic"]({"low_res": low}, (16, 16))) / 0.25
    plain = system(Generate(), point(), size=(16, 16))
    expected = plain.task.objectives(plain)[0].loss({"image": lacking}, Noise(range(5)))
    assert torch.equal(found.value, expected.value)
    assert float(lacking.std()) > 1


def test_conditioners_see_the_image_itself_where_a_residual_is_learned() -> None:
    network = Exact(PointMass(PATH, 0.0), ports=Ports(concat=2))
    plain = system(Generate(), network)
    told = Mask(autoencoder=plain.autoencoder)
    built = system(Inpaint(residual=0.3), network, conditioners={"known": told})
    batch = {"image": images(2), "mask": torch.zeros(2, 1, 4, 4)}
    built.task.objectives(built)[0].loss(batch, Noise([0, 1]))
    heard = network.heard[-1]
    assert heard is not None
    assert heard.concat is not None
    assert torch.equal(heard.concat[:, 1:], batch["image"])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SuperResolution(residual=0.2, objective=Autoencode()), "learns images"),
        (lambda: Inpaint(residual=0.2, method="resample"), "no residuals"),
    ],
)
def test_residuals_that_make_no_sense_are_refused(make: Any, match: str) -> None:
    with pytest.raises(IncompatibleParts, match=match):
        make()


@pytest.mark.parametrize(
    ("changes", "got"),
    [({"autoencoder": Quarter()}, "latents of Quarter"), ({"sampler": DDIM(steps=4, clip=1.0)}, "sampler.clip: 1.0")],
)
def test_residuals_are_of_pixels_and_are_not_clipped(changes: dict[str, Any], got: str) -> None:
    network = Exact(PointMass(PATH, 0.3), channels=3)
    built = system(SuperResolution(residual=0.2), network, size=(16, 16), channels=3, **changes)
    with pytest.raises(IncompatibleParts, match="difference of pixels") as caught:
        built.task.objectives(built)
    assert caught.value.got == got
