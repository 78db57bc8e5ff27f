"""How noise levels are drawn: each item on its own, without bias, and remembered across processes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed, multiprocessing

from diffloom.noise import Noise
from diffloom_ddpm.timesteps import Antithetic, Continuous, Cubic, LossAware, Uniform, gathered, make

CPU = torch.device("cpu")


def full(losses: Tensor, history: int = 10) -> LossAware:
    """Return a sampler that has seen losses (T,) often enough."""
    times = LossAware(len(losses), history=history)
    for _ in range(history):
        times.learn(torch.arange(len(losses)), losses)
    return times


def test_uniform_times_come_from_each_items_own_stream() -> None:
    whole = Uniform()(Noise(range(6)), 1000, CPU)
    assert torch.equal(whole.t[3:], Uniform()(Noise([3, 4, 5]), 1000, CPU).t)
    assert whole.weight.tolist() == [1.0] * 6


def test_uniform_times_reach_every_level_evenly() -> None:
    counts = torch.bincount(Uniform()(Noise(range(8000)), 8, CPU).t, minlength=8)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 24.3  # χ², 7 degrees of freedom, p = 0.001


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_antithetic_times_come_in_pairs(count: int) -> None:
    t = Antithetic()(Noise(range(count)), 1000, CPU).t
    half = (count + 1) // 2
    assert t.shape == (count,)
    assert bool((t[half:] + t[: count - half] == 999).all())
    assert torch.equal(t[:half], Uniform()(Noise(range(half)), 1000, CPU).t)


def test_continuous_times_are_real_and_within_the_schedule() -> None:
    t = Continuous()(Noise(range(2000)), 11, CPU).t
    assert t.dtype == torch.float64
    assert float(t.min()) >= 0
    assert float(t.max()) < 10
    assert bool((t != t.round()).any())
    assert float(t.mean()) == pytest.approx(5, abs=4 * 10 / math.sqrt(12 * 2000))


def test_cubic_times_prefer_noisy_levels_as_published() -> None:
    count = 20000
    drawn = Cubic()(Noise(range(count)), 1000, CPU)
    assert drawn.weight.tolist() == [1.0] * count
    assert (int(drawn.t.min()) >= 0, int(drawn.t.max())) == (True, 999)
    share = float((drawn.t >= 500).double().mean())
    assert share == pytest.approx(0.5 ** (1 / 3), abs=4 * math.sqrt(0.7937 * 0.2063 / count))
    spread = 1000 * math.sqrt(1 / 7 - 1 / 16)  # the standard deviation of u³
    assert float(drawn.t.double().mean()) == pytest.approx(750 - 0.5, abs=4 * spread / math.sqrt(count))


def test_loss_aware_times_are_uniform_until_every_level_is_known() -> None:
    times = LossAware(3, history=2)
    times.learn(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([5.0, 5.0, 1.0, 1.0, 1.0]))
    assert times.probabilities().tolist() == [1 / 3] * 3
    assert times(Noise(range(4)), 3, CPU).weight.tolist() == pytest.approx([1.0] * 4)
    times.learn(torch.tensor([2]), torch.tensor([1.0]))
    assert times.probabilities()[0] > 0.5


def test_loss_aware_times_follow_the_root_mean_square_of_the_last_losses() -> None:
    times = LossAware(2, history=2)
    times.learn(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([9.0, 1.0, 7.0, 1.0, 2.0]))
    size = [math.sqrt((1 + 49) / 2), math.sqrt((1 + 4) / 2)]
    wanted = [0.999 * s / sum(size) + 0.001 / 2 for s in size]
    assert times.probabilities().tolist() == pytest.approx(wanted)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 100, width=32)), max_size=40), st.data())
def test_histories_hold_the_last_losses_however_they_are_batched(
    seen: list[tuple[int, float]], data: st.DataObject
) -> None:
    times = LossAware(5, history=3)
    rest = list(seen)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        t, losses = zip(*rest[:size], strict=True)
        times.learn(torch.tensor(t), torch.tensor(losses))
        rest = rest[size:]
    for level in range(5):
        wanted = [loss for t, loss in seen if t == level][-3:]
        assert sorted(times.losses[level].tolist()) == sorted(wanted + [0.0] * (3 - len(wanted)))


def test_importance_weights_leave_the_mean_where_it_is() -> None:
    times = full(torch.tensor([4.0, 1.0, 0.5, 0.0]))
    f = torch.tensor([3.0, -2.0, 7.0, 11.0], dtype=torch.float64)
    p = times.probabilities()
    levels = torch.arange(4)
    drawn = times(Noise(range(20000)), 4, CPU)
    weight_of = {int(t): float(w) for t, w in zip(drawn.t, drawn.weight, strict=True)}
    assert set(weight_of) == set(levels.tolist())
    mean = sum(float(p[t]) * weight_of[int(t)] * float(f[t]) for t in levels)
    assert mean == pytest.approx(float(f.mean()), rel=1e-12)
    counts = torch.bincount(drawn.t, minlength=4)
    assert float(((counts - 20000 * p) ** 2 / (20000 * p)).sum()) < 16.3  # χ², 3 degrees of freedom, p = 0.001


def test_no_level_is_forgotten_and_no_loss_at_all_prefers_none() -> None:
    assert float(full(torch.tensor([1.0, 0.0])).probabilities()[1]) == pytest.approx(0.0005)
    assert full(torch.zeros(4)).probabilities().tolist() == [0.25] * 4


def test_what_is_learned_can_be_saved_and_goes_on() -> None:
    before, after = full(torch.rand(6)), LossAware(6)
    after.load_state_dict(before.state_dict())
    assert set(before.state_dict()) == {"losses", "counts"}
    for times in (before, after):
        times.learn(torch.tensor([2, 2, 5]), torch.tensor([3.0, 4.0, 5.0]))
    assert torch.equal(before.probabilities(), after.probabilities())


def test_each_name_has_its_way_to_draw() -> None:
    made = [type(make(name, 5)) for name in ("uniform", "antithetic", "continuous", "cubic", "loss-aware")]
    assert made == [Uniform, Antithetic, Continuous, Cubic, LossAware]
    assert make("loss-aware", 5).state_dict()["losses"].shape == (5, 10)


def _gather(rank: int, store: str, queue: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    t = torch.tensor([1, 2, 3] if rank == 0 else [4])
    times, losses = gathered(t, t.float() / 2)
    queue.put((times.tolist(), losses.tolist()))
    distributed.destroy_process_group()


def test_all_processes_learn_from_the_losses_of_all(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    workers = [context.Process(target=_gather, args=(r, str(tmp_path / "store"), queue)) for r in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    found = [queue.get() for _ in workers if not queue.empty()]
    assert found == [([1, 2, 3, 4], [0.5, 1.0, 1.5, 2.0])] * 2
