"""Every spacing gives exactly n strictly descending levels, and the ones that papers print."""

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffloom.errors import IncompatibleParts
from diffloom.grid import Grid, Spacing, spaced
from diffloom.noise import Noise
from diffloom.sampler import State
from diffloom.schedule import Schedule
from diffloom.testing.oracles import PointMass
from diffloom.testing.strategies import Tabled, schedules
from diffloom_ddim.sampler import DDIM
from diffloom_ddpm.schedules import Linear, ScaledLinear

from .fixed import law

SPACINGS = get_args(Spacing)


@law
@given(schedules(), st.data(), st.sampled_from(SPACINGS), st.integers(0, 3))
def test_exactly_n_strictly_descending_levels(
    schedule: Schedule, data: st.DataObject, spacing: Spacing, offset: int
) -> None:
    count = data.draw(st.integers(1, schedule.steps))
    grid = DDIM(steps=count, spacing=spacing, offset=offset).grid(schedule)
    assert len(grid) == count
    whole = torch.tensor(grid.times)
    assert bool((whole.diff() < 0).all())
    assert whole[0] <= schedule.steps - 1
    assert (float(grid.alpha[-1]), float(grid.sigma[-1])) == (1, 0)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "quadratic"])
def test_index_spacings_give_n_levels_for_every_n_and_many_totals(spacing: Spacing) -> None:
    for total in (*range(1, 25), 50, 101):
        schedule = Linear(steps=total, beta_end=0.1)
        for count in range(1, total + 1):
            t = spaced(schedule, count, spacing)
            assert t.shape == (count,)
            assert bool((t.diff() < 0).all())
            assert 0 <= t[-1] <= t[0] <= total - 1
            assert torch.equal(t, t.round())
        if spacing != "quadratic" or total < 5:
            assert torch.equal(t, torch.arange(total, dtype=torch.float64).flip(0))


@pytest.mark.parametrize(
    ("spacing", "count", "expected"),
    [
        ("leading", 10, list(range(900, -1, -100))),
        ("leading", 7, [852, 710, 568, 426, 284, 142, 0]),
        ("linspace", 10, [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]),
        ("trailing", 10, list(range(999, 0, -100))),
        ("trailing", 7, [999, 856, 713, 570, 428, 285, 142]),
        ("quadratic", 10, [800, 632, 483, 355, 246, 158, 88, 39, 9, 0]),
    ],
)
def test_published_grids(spacing: Spacing, count: int, expected: list[int]) -> None:
    assert spaced(Linear(), count, spacing).tolist() == expected


def test_respacing_of_improved_ddpm() -> None:
    ascending = spaced(Linear(), 50, "linspace").flip(0).tolist()
    assert ascending[:6] == [0, 20, 41, 61, 82, 102]
    assert ascending[-3:] == [958, 979, 999]


def test_leading_offset_is_latent_diffusions() -> None:
    assert spaced(Linear(), 10, "leading", offset=1).tolist() == list(range(901, 0, -100))
    assert spaced(Linear(), 1000, "leading", offset=1).tolist() == list(range(999, -1, -1))


def noise_levels(schedule: Schedule, count: int, spacing: Spacing) -> list[float]:
    grid = DDIM(steps=count, spacing=spacing).grid(schedule)
    return (grid.sigma / grid.alpha)[:-1].tolist()


def test_karras_noise_levels() -> None:
    expected = [14.6146412293, 9.102928134, 5.4783919864, 3.168603073, 1.7494170493]
    expected += [0.914072265, 0.4469182094, 0.2013982998, 0.0819102383, 0.0291671582]
    assert noise_levels(ScaledLinear(), 10, "karras") == pytest.approx(expected, rel=1e-8)
    linear = noise_levels(Linear(), 10, "karras")
    assert [linear[0], linear[1], linear[-1]] == pytest.approx([157.40728081, 85.710522388, 0.010000500038], rel=1e-9)


def test_exponential_noise_levels() -> None:
    expected = [14.6146412293, 3.0889768103, 0.6528916848, 0.1379963587, 0.0291671582]
    assert noise_levels(ScaledLinear(), 5, "exponential") == pytest.approx(expected, rel=1e-8)
    assert noise_levels(ScaledLinear(), 5, "log-snr") == noise_levels(ScaledLinear(), 5, "exponential")


def test_times_of_noise_levels() -> None:
    expected = [999, 916.283907, 815.044681, 687.152746, 523.198085]
    expected += [327.145989, 145.938069, 40.856433, 6.732297, 0]
    assert spaced(ScaledLinear(), 10, "karras").tolist() == pytest.approx(expected, abs=1e-5)
    assert float(ScaledLinear().time(0.0)) == pytest.approx(353.890410595, abs=1e-8)
    assert float(Linear().time(0.0)) == pytest.approx(258.093019695, abs=1e-8)


def test_spacings_in_noise_level_start_within_a_schedule_that_ends_at_zero_snr() -> None:
    schedule = Tabled(
        alpha=torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64),
        sigma=torch.tensor([0.19**0.5, 0.75**0.5, 1.0], dtype=torch.float64),
    )
    levels = noise_levels(schedule, 3, "karras")
    assert levels[0] == pytest.approx(4096, rel=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_more_steps_than_levels_are_refused(spacing: Spacing) -> None:
    with pytest.raises(IncompatibleParts, match=r"sampler\.steps: 51 sampling steps .* set sampler\.steps to 50"):
        DDIM(steps=51, spacing=spacing).grid(Linear(steps=50))


@pytest.mark.parametrize("times", [(3, 3), (1, 2), (50,), (5, -1), (5, -2), ()])
def test_explicit_times_must_descend_within_the_schedule(times: tuple[float, ...]) -> None:
    with pytest.raises(IncompatibleParts, match="do not lead from noise to data"):
        DDIM(timesteps=times).grid(Linear(steps=50))


def test_explicit_times_replace_steps_and_spacing() -> None:
    assert DDIM(steps=3, timesteps=(40, 20.5, 3, 0)).grid(Linear(steps=50)).times == (40, 20.5, 3, 0, -1)


def test_the_end_can_be_the_first_level() -> None:
    schedule = Linear(steps=50)
    grid = DDIM(steps=10, spacing="leading", offset=1, final="first").grid(schedule)
    assert grid.times[-2:] == (1, 0)
    assert float(grid.alpha[-1]) == float(schedule.alpha(0))
    for spacing in SPACINGS:
        grid = DDIM(steps=10, spacing=spacing, final="first").grid(schedule)
        assert len(grid) == 10
        assert grid.times[-2] > grid.times[-1] == 0
    with pytest.raises(IncompatibleParts, match="final"):
        DDIM(steps=50, final="first").grid(schedule)


@law
@given(st.integers(1, 40), st.floats(0, 1))
def test_strength_enters_on_the_grid(count: int, strength: float) -> None:
    schedule = Linear(steps=40, beta_end=0.3)
    sampler, z = DDIM(steps=count), torch.randn(1, 2, dtype=torch.float64)
    grid = sampler.grid(schedule)
    state = sampler.start(schedule, z, x0=torch.zeros(1, 2, dtype=torch.float64), strength=strength)
    made = count - state.index
    assert made <= strength * count < made + 1 or made == strength * count == count
    torch.testing.assert_close(state.x, float(grid.sigma[state.index]) * z)


@pytest.mark.parametrize(("strength", "made"), [(0.75, 37), (1.0, 50), (0.999, 49), (0.0, 0), (0.019, 0)])
def test_the_published_numbers_of_steps_by_strength(strength: float, made: int) -> None:
    """Meng et al. 2022 in latent diffusion's code: min(int(N·s), N) of N = 50 steps, from index N − n on."""
    schedule, datum = Linear(steps=100, beta_end=0.3), torch.full((1, 2), 0.3, dtype=torch.float64)
    state = DDIM(steps=50).start(schedule, torch.randn(1, 2, dtype=torch.float64), x0=datum, strength=strength)
    assert state.index == 50 - made
    assert torch.equal(state.x, datum) == (made == 0)


def test_image_to_image_goes_on_from_there() -> None:
    schedule = Linear(steps=40, beta_end=0.3)
    sampler, datum = DDIM(steps=10), torch.full((1, 2), 0.3, dtype=torch.float64)
    asked = []

    def model(x: torch.Tensor, t: torch.Tensor) -> object:
        asked.append(float(t))
        return PointMass(schedule, 0.3)(x, t)

    state = sampler.start(schedule, torch.randn(1, 2, dtype=torch.float64), x0=datum, strength=0.5)
    torch.testing.assert_close(sampler.sample(model, schedule, state), datum)  # type: ignore[arg-type]
    assert asked == list(sampler.grid(schedule).times[5:-1])
    with pytest.raises(ValueError, match="strength"):
        sampler.start(schedule, datum, datum, strength=1.5)


def test_pure_noise_is_scaled_to_the_first_level() -> None:
    ve = Tabled(alpha=torch.ones(3, dtype=torch.float64), sigma=torch.tensor([0.1, 1, 80], dtype=torch.float64))
    z = torch.ones(1, 1, dtype=torch.float64)
    assert float(DDIM(steps=3).start(ve, z).x) == pytest.approx(6401**0.5)
    assert float(DDIM(steps=3).start(Linear(), z).x) == pytest.approx(1, rel=1e-15)


def test_grids_are_made_on_the_cpu() -> None:
    with torch.device("meta"):
        grid = DDIM(steps=3, spacing="karras").grid(Linear())
    assert {part.device.type for part in (grid.t, grid.alpha, grid.sigma, grid.log_snr)} == {"cpu"}
    assert isinstance(grid, Grid)


def test_a_state_survives_as_plain_tensors() -> None:
    state = State(torch.randn(2, 3), 4, {"eps": torch.randn(2, 3)})
    again = State.from_tensors(state.to_tensors())
    assert again.index == 4
    assert torch.equal(again.x, state.x)
    assert torch.equal(again.memory["eps"], state.memory["eps"])


def test_missing_noise_is_said() -> None:
    with pytest.raises(IncompatibleParts, match="draws noise"):
        DDIM(steps=2, eta=1.0).sample(PointMass(Linear(), 0.0), Linear(), torch.ones(1, 1))
    DDIM(steps=2, eta=1.0).sample(PointMass(Linear(), 0.0), Linear(), torch.ones(1, 1), Noise([0]))
