"""Inpainting: known pixels stay, hidden ones are never looked at, and resampling approaches the conditional law."""

import pytest
import torch

from diffloom.condition import Ports
from diffloom.noise import Noise
from diffloom.sampler import State
from diffloom.system import System
from diffloom.testing.oracles import FullGaussian, PointMass
from diffloom_ddim.sampler import DDIM
from diffloom_ddpm.ancestral import Ancestral
from diffloom_ddpm.generate import Generate
from diffloom_ldm.conditioners.mask import Mask
from diffloom_ldm.tasks.inpaint import Inpaint
from diffloom_ldm.tasks.known_pixels import KnownPixels
from tests.ldm.conditioners.parts import Quarter
from tests.ldm.tasks.parts import PATH, Exact, images, point, system

MASK = torch.zeros(3, 1, 4, 4)
MASK[:, :, 1:3, 2:] = 1


@pytest.mark.parametrize("method", ["told", "resample"])
def test_known_pixels_are_pasted_bit_by_bit_and_the_hole_is_made(method: str) -> None:
    built = system(Inpaint(method=method), point())  # type: ignore[arg-type]  # one of the two
    given = images(3)
    made = built.predict({"image": given, "mask": MASK}, seeds=range(3))["image"]
    assert torch.equal(made[MASK < 0.5], given[MASK < 0.5])
    torch.testing.assert_close(made[MASK > 0.5], torch.full((12,), 0.3), atol=2e-2, rtol=0)


def test_without_pasting_the_network_s_own_pixels_are_left() -> None:
    built = system(Inpaint(paste=False), point())
    made = built.predict({"image": images(3), "mask": MASK}, seeds=range(3))["image"]
    torch.testing.assert_close(made, torch.full_like(made, 0.3), atol=2e-2, rtol=0)


@pytest.mark.parametrize("latents", [False, True])
@pytest.mark.parametrize("method", ["told", "resample"])
def test_hidden_pixels_are_never_looked_at(method: str, latents: bool) -> None:
    autoencoder = Quarter() if latents else None
    told = Mask(autoencoder=autoencoder or system(Generate(), point(), channels=3).autoencoder)
    network = Exact(PointMass(PATH, 0.1), channels=3, ports=Ports(concat=4))
    built = system(
        Inpaint(method=method, passes=2, paste=False),  # type: ignore[arg-type]  # one of the two
        network,
        size=(16, 16),
        channels=3,
        autoencoder=autoencoder,
        conditioners={"known": told} if method == "told" else None,
    )
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., 3:9, 2:11] = 1
    one, other = images(2, 16, 3), images(2, 16, 3, seed=1)
    changed = torch.where(mask > 0, other, one)
    first, second = (built.predict({"image": x, "mask": mask}, seeds=[1, 2])["image"] for x in (one, changed))
    assert torch.equal(first, second)
    assert all(
        a is None or b is None or a.concat is None or b.concat is None or torch.equal(a.concat, b.concat)
        for a, b in zip(network.heard[:20], network.heard[20:], strict=False)
    )


# --- resampling ------------------------------------------------------------------------------------------------------

RHO = 0.9


ROWS, COUNT = 100, 8


def pairs(passes: int, sampler: Ancestral) -> System:
    """Rows of two pixels, N(0, 0.25) each, whose correlation is 0.9; the left one is known."""
    two = 0.25 * torch.tensor([[1, RHO], [RHO, 1]], dtype=torch.float64)
    covariance = torch.kron(torch.eye(ROWS, dtype=torch.float64), two)
    oracle = FullGaussian(PATH, torch.zeros(2 * ROWS, dtype=torch.float64), covariance)
    return system(Inpaint(method="resample", passes=passes), Exact(oracle), size=(ROWS, 2), sampler=sampler)


def slope(passes: int) -> float:
    """Return Δ(mean of the hidden pixel) for Δ(known pixel) = 1, whose exact value is the correlation."""
    built, mask = pairs(passes, Ancestral(steps=20)), torch.tensor([0.0, 1.0]).expand(COUNT, 1, ROWS, 2)
    means = []
    for known in (-0.5, 0.5):
        batch = {"image": torch.full((COUNT, 1, ROWS, 2), known), "mask": mask}
        means.append(float(built.predict(batch, seeds=range(COUNT))["image"][..., 1].mean()))
    return means[1] - means[0]


def test_more_passes_come_closer_to_the_conditional_mean() -> None:
    """E[x_2 | x_1] = ρ x_1: one pass knows too little of the known pixel, several find it (Lugmayr et al. 2022)."""
    once, often = slope(1), slope(8)
    assert once < 0.75 * RHO
    assert often == pytest.approx(RHO, abs=0.06)


def test_the_known_part_is_put_in_after_each_step_at_the_level_reached() -> None:
    known, mask = torch.full((4, 1, 125, 2), 0.4), torch.tensor([0.0, 1.0]).expand(4, 1, 125, 2)
    kept = KnownPixels(inner=DDIM(steps=5), known=known, mask=mask, noise=Noise(range(4)))
    grid = kept.grid(PATH)
    states: list[State] = []
    kept.sample(PointMass(PATH, 0.0), PATH, torch.randn(4, 1, 125, 2), Noise(range(4)), states.append)
    assert [state.index for state in states] == [1, 2, 3, 4, 5]
    for state in states[:-1]:
        level, shown = grid.levels[state.index], state.x[..., 0]
        assert float(shown.mean()) == pytest.approx(0.4 * level.alpha, abs=4 * level.sigma / 500**0.5)
        assert float(shown.std()) == pytest.approx(level.sigma, rel=0.15)
    assert torch.equal(states[-1].x[..., 0], known[..., 0])


def test_a_hole_of_everything_leaves_the_sampler_as_it_is() -> None:
    start, model = torch.randn(4, 1, 2, 2), PointMass(PATH, 0.2)
    inner = DDIM(steps=6)
    kept = KnownPixels(inner=inner, known=torch.zeros(4, 1, 2, 2), mask=torch.ones(4, 1, 2, 2), noise=Noise(range(4)))
    assert torch.equal(kept.sample(model, PATH, start), inner.sample(model, PATH, start))


@pytest.mark.parametrize("passes", [1, 3])
def test_every_step_but_the_last_is_made_so_often(passes: int) -> None:
    network = point()
    built = system(Inpaint(method="resample", passes=passes), network, sampler=DDIM(steps=5))
    built.predict({"image": images(3), "mask": MASK}, seeds=range(3))
    assert len(network.asked) == 4 * passes + 1
    assert network.asked[:passes] == [PATH.steps - 1.0] * passes


def test_going_back_keeps_the_marginal() -> None:
    """x_t drawn from q(x_t | x_s) with x_s = α_s z + σ_s ε has mean α_t z and deviation σ_t."""
    count, z = 4000, 0.5
    kept = KnownPixels(
        inner=DDIM(steps=4),
        known=torch.full((4, 1, 20, 50), z),
        mask=torch.zeros(1, 1, 1, 1),
        passes=2,
        noise=Noise(range(4)),
    )
    grid = kept.grid(PATH)
    seen: list[torch.Tensor] = []

    def model(x: torch.Tensor, t: torch.Tensor) -> object:
        seen.append(x)
        return PointMass(PATH, z)(x, t)

    kept.sample(model, PATH, torch.randn(4, 1, 20, 50))  # type: ignore[arg-type]  # answers as the oracle does
    level = grid.levels[1]
    again = seen[3]  # the second pass of the second step
    assert float(again.mean()) == pytest.approx(level.alpha * z, abs=4 * level.sigma / count**0.5)
    assert float(again.std()) == pytest.approx(level.sigma, rel=0.05)
