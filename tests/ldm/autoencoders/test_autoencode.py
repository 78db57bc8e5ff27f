"""The task: what its objectives reach, what it leaves alone, and what it leaves behind."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffloom
from diffloom import Run
from diffloom.autoencoder import Autoencoder
from diffloom.checkpoint import load_tensors
from diffloom.errors import DiffloomError, IncompatibleParts
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom.system import Plan, System
from diffloom.task import Objective
from diffloom_ldm.autoencoders.kl import KL
from diffloom_ldm.autoencoders.vae import VAE
from diffloom_ldm.autoencoders.vq import VQ
from diffloom_ldm.tasks.autoencode import Adversarial, Autoencode, Perceptual

SPACE = Space(3, (32, 32))
SMALL: dict[str, Any] = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
JUDGE = Adversarial(layers=2, channels=8)
RANDOM = Perceptual(backbone="random")


def system(autoencoder: Autoencoder | None = None, space: Space = SPACE, **task: Any) -> System:
    torch.manual_seed(0)
    part = KL(space=space, **SMALL) if autoencoder is None else autoencoder
    return System(Plan(data_space=space), autoencoder=part, task=Autoencode(autoencoder=part, **task)).train()


def batch(count: int = 4, space: Space = SPACE) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"image": torch.rand(count, *space.shape, generator=generator) * 2 - 1}


def loss(made: System, name: str = "autoencoder", **changes: Any) -> Any:
    (found,) = [o for o in made.task.objectives(made) if o.name == name]
    return found.loss({**batch(), **changes}, Noise(range(4)))


def grads(objective: Objective, made: System) -> dict[str, bool]:
    """Return for every parameter of the system whether the objective's loss reaches it."""
    made.zero_grad()
    objective.loss(batch(), Noise(range(4))).value.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad is not None and bool(p.grad.any()) for name, p in made.named_parameters()}


def test_the_discriminators_step_leaks_nothing_into_the_autoencoder() -> None:
    made = system(adversarial=JUDGE, perceptual=RANDOM)
    _, judge = made.task.objectives(made)
    reached = grads(judge, made)
    assert not any(hit for name, hit in reached.items() if name.startswith("autoencoder"))
    missed = [name for name, hit in reached.items() if "discriminator" in name and not hit]
    assert all(name.endswith("bias") for name in missed)  # the last one only shifts both sides of the hinge
    assert len(missed) <= 1


def test_the_perceptual_and_the_adversarial_term_reach_the_autoencoder() -> None:
    """Each alone changes the gradient of the encoder's first layer."""

    def first(**task: Any) -> Tensor:
        made = system(**task)
        loss(made).value.backward()
        grad: Tensor = made.autoencoder.encoder.stem.weight.grad  # type: ignore[union-attr, assignment]
        return grad

    plain = first()
    assert not torch.allclose(first(perceptual=RANDOM), plain, rtol=1e-2)
    assert not torch.allclose(first(adversarial=JUDGE), plain, rtol=1e-2)


def test_everything_of_the_autoencoder_learns() -> None:
    for part in (KL(space=SPACE, **SMALL), VQ(space=SPACE, codes=16, **SMALL)):
        made = system(part, adversarial=JUDGE)
        for p in made.autoencoder.parameters():
            torch.nn.init.normal_(p, 0.05, 0.1)  # no zero layer hides what stands before it
        reached = grads(made.task.objectives(made)[0], made)
        assert [n for n, hit in reached.items() if n.startswith("autoencoder") and not hit] == []


def test_the_adversarial_terms_begin_when_they_are_told() -> None:
    made = system(adversarial=Adversarial(layers=2, channels=8, start=10))
    made.task.step = 9
    assert "generator" not in loss(made).terms
    idle = loss(made, "discriminator").value
    assert float(idle) == 0
    idle.backward()
    made.task.step = 10
    assert "generator" in loss(made).terms
    assert float(loss(made, "discriminator").value) > 0


def test_the_loss_is_the_sum_of_the_papers_terms() -> None:
    made = system(perceptual=Perceptual(backbone="random", weight=0.5), kl=1e-3, adversarial=JUDGE)
    task = made.task
    assert isinstance(task, Autoencode)
    found = loss(made)
    draft = task.draft(made, batch(), Noise(range(4)))
    values = 3 * 32 * 32
    error = (draft.image - draft.x).abs().flatten(1).sum(1)
    assert task.distance is not None
    seen = 0.5 * values * task.distance(draft.image, draft.x)
    generator = found.terms["adversarial_weight"] * found.terms["generator"]
    expected = (error + seen).mean() + 1e-3 * draft.posterior.kl().mean() + generator
    assert float(found.value) == pytest.approx(float(expected), rel=1e-4)


def test_means_are_sums_over_values() -> None:
    summed, mean = loss(system(kl=1e-2)), loss(system(kl=1e-2, reduction="mean"))
    assert float(mean.value) == pytest.approx(float(summed.value) / (3 * 32 * 32), rel=1e-5)


def test_codes_are_trained_with_means() -> None:
    made = system(VQ(space=SPACE, codes=16, **SMALL), codebook=2.0)
    found = loss(made)
    expected = found.terms["l1"] + 2.0 * found.terms["codebook"]
    assert float(found.value) == pytest.approx(float(expected), rel=1e-5)


def test_the_rates_weight_rises_and_free_bits_cost_nothing() -> None:
    made = system(kl=2.0, kl_warmup=100)
    rate, error = loss(made).terms["rate"], loss(made).terms["distortion"]
    for step, beta in ((0, 0.0), (50, 1.0), (100, 2.0), (1000, 2.0)):
        made.task.step = step
        assert float(loss(made).value) == pytest.approx(float(error + beta * rate), rel=1e-5)
    free = loss(system(kl=2.0, free_bits=100.0))
    dimensions = 4 * 16 * 16
    assert float(free.value) == pytest.approx(float(error) + 2 * 100 * dimensions, rel=1e-5)


def test_training_goes_on_in_raw_units_once_the_scale_is_known() -> None:
    made = system(kl=1.0)
    before = loss(made)
    made.autoencoder.measure([(batch()["image"], Noise(range(4)))])  # type: ignore[operator]
    after = loss(made)
    assert float(after.value) == pytest.approx(float(before.value), rel=1e-4)
    assert float(after.terms["rate"]) == pytest.approx(float(before.terms["rate"]), rel=1e-4)


def test_images_of_any_size_come_back() -> None:
    made = system().eval()
    answer = made.predict({"image": torch.rand(1, 3, 19, 42) * 2 - 1}, seeds=[0])
    assert answer["image"].shape == (1, 3, 19, 42)


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "discretised"])
def test_bits_are_those_of_the_bound(kind: str) -> None:
    """For grey levels the density's bits approach those of the discretised likelihood where it is wide."""
    made = system(reconstruction=kind, width=0.5).eval()
    task = made.task
    assert isinstance(task, Autoencode)
    grey = {"image": (batch()["image"] * 0.9 * 127.5).round() / 127.5}  # no ends, whose bins are wider
    with torch.no_grad():
        bits = task.bits_per_dim(made, grey, Noise(range(4)))
        parts = task.evidence(made, grey, Noise(range(4)))
    torch.testing.assert_close(bits["total"], bits["kl"] + bits["reconstruction"])
    nats = parts["distortion"] / (3 * 32 * 32 * math.log(2))
    level = 0.0 if kind == "discretised" else math.log2(127.5)
    torch.testing.assert_close(bits["reconstruction"], nats + level)
    if kind == "gaussian":
        task.reconstruction = "discretised"
        torch.testing.assert_close(
            task.bits_per_dim(made, grey, Noise(range(4)))["reconstruction"], bits["reconstruction"], rtol=2e-2, atol=0
        )


def test_the_importance_weighted_bound_meets_quadrature() -> None:
    """The linear Gaussian model of the reference: K = 1 and 2 draws, and the limit ln p(x)."""
    count = 200_000
    z = 0.4 + math.sqrt(0.1) * torch.randn(2, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def log_normal(x: Tensor | float, mean: Tensor | float, variance: float) -> Tensor:
        return -0.5 * (math.log(2 * math.pi * variance) + torch.as_tensor(x - mean) ** 2 / variance)

    weights = log_normal(1.7, 2 * z + 0.5, 0.25) + log_normal(z, 0.0, 1.0) - log_normal(z, 0.4, 0.1)
    assert float(weights.mean()) == pytest.approx(-2.12708389914, abs=6e-3)
    assert float((weights.logsumexp(0) - math.log(2)).mean()) == pytest.approx(-1.92767515139, abs=6e-3)
    assert float(weights.flatten().logsumexp(0) - math.log(2 * count)) == pytest.approx(-1.81180978938, abs=3e-2)


def test_evidence_is_the_bound_in_the_mean() -> None:
    made = system(VAE(space=SPACE, channels=4, hidden=16, latent=3), reconstruction="gaussian").eval()
    task = made.task
    assert isinstance(task, Autoencode)
    with torch.no_grad():
        found = [task.evidence(made, batch(), Noise(range(4), scope=(k,))) for k in range(400)]
    weights = torch.stack([f["log_weight"] for f in found])
    bound = torch.stack([-f["distortion"] for f in found]).mean(0) - found[0]["rate"]
    assert bool(((weights.mean(0) - bound).abs() < 5 * weights.std(0) / 20 + 1e-3).all())


@pytest.mark.parametrize(
    ("task", "what"),
    [
        ({"reconstruction": "bernoulli"}, "nothing holds it"),
        ({"width": 1.0}, "has no width"),
        ({"adversarial": Adversarial(layers=6)}, "too small for the discriminator"),
    ],
)
def test_choices_that_exclude_each_other_are_refused(task: dict[str, Any], what: str) -> None:
    with pytest.raises(IncompatibleParts, match=what):
        system(**task).task.objectives(system(**task))


def test_a_code_without_variance_has_no_evidence() -> None:
    made = system(VQ(space=SPACE, codes=16, **SMALL), reconstruction="gaussian")
    with pytest.raises(IncompatibleParts, match="no rate"):
        made.task.evidence(made, batch(), Noise(range(4)))  # type: ignore[operator]


RECIPE = """\
diffloom: 1
name: {name}
data: {{type: digits, size: 16, split: train}}
autoencoder: {autoencoder}
task: {{type: autoencode, {task}}}
train: {{steps: {steps}, batch: 32, lr: 2.0e-3, optimizer: adam, ema: 0.9, checkpoint_every: 10}}
sample: {{count: 4}}
eval: {{count: 20, batch: 10, metrics: [{{type: psnr}}, {{type: compression}}, {{type: elbo}}, {{type: bits-per-dim}}]}}
hooks: [samples]
"""


def trained(folder: Path, autoencoder: str, task: str, steps: int = 30, name: str = "stage-one") -> Run:
    file = folder / f"{name}.yaml"
    file.write_text(RECIPE.format(name=name, autoencoder=autoencoder, task=task, steps=steps))
    diffloom.load(file).check()
    run = Run(diffloom.load(file), folder / "runs" / name)
    run.train()
    return run


CONV = "{type: kl, channels: 8, multipliers: [1, 2], blocks: 1, latent: 2, groups: 4}"


def test_a_run_learns_measures_its_latents_and_carries_a_second_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = trained(tmp_path, CONV, "reconstruction: gaussian, adversarial: {layers: 1, channels: 8, start: 20}")
    assert run.system.autoencoder.is_scaled()
    average = load_tensors(run.checkpoints / "step-00000030" / "average.safetensors")
    assert bool(average["autoencoder:measured"])
    held = torch.stack([run.dataset.get(i)["image"] for i in range(100)])
    z = run.system.encode(held, Noise(range(100)))
    assert z.transpose(0, 1).flatten(1).std(1).tolist() == pytest.approx([1, 1], abs=0.15)
    figures = run.evaluate()["sampler"]
    assert figures["psnr"] > 12
    assert figures["compression/values"] == 2.0
    assert figures["compression/bits-per-pixel"] > 0
    assert figures["bits-per-dim/total"] < 12
    outputs = run.sample()
    assert outputs["image"].shape == (4, 1, 16, 16)
    assert (run.directory / "samples" / "step-00000030-given.png").is_file()
    second = """\
diffloom: 1
name: stage-two
data: {type: digits, size: 16}
extends: stage.yaml
autoencoder: {weights: "run:stage-one", freeze: true}
schedule: {type: linear}
denoiser: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1}
sampler: {type: ddim, steps: 2}
task: {type: generate}
train: {steps: 2, batch: 4}
hooks: []
"""
    (tmp_path / "stage.yaml").write_text(f"autoencoder: {CONV}\n")
    file = tmp_path / "stage-two.yaml"
    file.write_text(second)
    diffloom.load(file).check()
    latent = Run(diffloom.load(file), tmp_path / "runs" / "stage-two")
    latent.train()
    assert torch.equal(latent.system.autoencoder.scale, run.system.autoencoder.scale)  # type: ignore[arg-type]
    assert latent.sample(2)["image"].shape == (2, 1, 16, 16)


def test_a_run_that_was_not_finished_carries_no_second_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = trained(tmp_path, CONV, "reconstruction: l1", steps=10)
    state = run.system.autoencoder.state_dict()
    state["measured"] = torch.tensor(False)
    from diffloom.checkpoint import save_tensors

    save_tensors(state, tmp_path / "unmeasured.safetensors")
    overrides = {
        "autoencoder.weights": str(tmp_path / "unmeasured.safetensors"),
        "task": {"type": "generate"},
        "schedule": {"type": "linear"},
        "denoiser": {"type": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1},
        "sampler": {"type": "ddim", "steps": 2},
    }
    with pytest.raises(DiffloomError, match=r"nothing says how large the latents .* are"):
        diffloom.load(tmp_path / "stage-one.yaml", overrides=overrides).build()


def test_a_killed_run_goes_on_to_equal_bits(tmp_path: Path) -> None:
    """With a discriminator, averaged codes and restarts, whose states are saved as well."""
    vq = "{type: vq, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, codes: 16, decay: 0.9, restart: 3}"
    task = "adversarial: {layers: 1, channels: 8, start: 5}"
    whole = trained(tmp_path, vq, task, steps=20, name="whole")
    part = trained(tmp_path, vq, task, steps=20, name="part")
    for file in (part.checkpoints / "step-00000020").iterdir():
        file.unlink()
    (part.checkpoints / "step-00000020").rmdir()
    again = Run.of(part.directory)
    again.train()
    for stem in ("weights", "average"):
        one, other = (load_tensors(r.checkpoints / "step-00000020" / f"{stem}.safetensors") for r in (whole, again))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_small_vae_learns_digits(tmp_path: Path) -> None:
    run = trained(tmp_path, "{type: vae, hidden: 64, latent: 8}", "reconstruction: gaussian, kl: 1.0", steps=60)
    figures = run.evaluate()["sampler"]
    assert figures["elbo/bound"] == pytest.approx(-figures["elbo/distortion"] - figures["elbo/rate"], abs=3.0)
    assert figures["elbo/active-units"] >= 1
    assert figures["psnr"] > 10
