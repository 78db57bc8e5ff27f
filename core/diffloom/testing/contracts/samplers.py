"""What every sampler must do, on every path."""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from hypothesis import strategies as st
from torch import Tensor

from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.path import from_log_snr
from diffloom.sampler import Sampler, State
from diffloom.schedule import Schedule
from diffloom.testing.contracts.base import Contract, Make, applies, close, equal, for_all, is_a, require
from diffloom.testing.convergence import exploding, measure, order
from diffloom.testing.oracles import DiagonalGaussian, PointMass
from diffloom.testing.strategies import Tabled, schedules


def paths(steps: int = 24, edge: float = 8.0) -> Iterator[tuple[str, Schedule]]:
    """Yield a small schedule of each family, and one that ends at zero SNR."""
    log_snr = torch.linspace(edge, -edge, steps, dtype=torch.float64)
    for path in ("vp", "ve", "flow"):
        alpha, sigma = from_log_snr(log_snr, path)
        yield path, Tabled(alpha=alpha, sigma=sigma)
    alpha, sigma = from_log_snr(log_snr, "vp")
    alpha[-1], sigma[-1] = 0.0, 1.0
    yield "zero terminal SNR", Tabled(alpha=alpha, sigma=sigma)


def begin(sampler: Sampler, schedule: Schedule, count: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return x_T (count, 2, 3, 3), item i from seed i."""
    like = torch.empty(count, 2, 3, 3, dtype=dtype)
    return sampler.start(schedule, Noise(range(count)).normal(like, "x_T")).x


class SamplerContract(Contract):
    """A sampler is a grid and a pure step, with no state of its own."""

    kind: ClassVar[str] = "sampler"

    def check_fields_are_parameters(self, make: Make) -> None:
        """Every field that the class annotates is a parameter: the class is a dataclass, as its base is."""
        cls = type(make())
        decorated = "__dataclass_fields__" in vars(cls)
        applies(decorated or "__init__" not in vars(cls), "it has a constructor of its own")
        fields = [name for name, kind in inspect.get_annotations(cls).items() if "ClassVar" not in str(kind)]
        left = ", ".join(name for name in fields if name not in inspect.signature(cls).parameters)
        require(decorated or not left, f"{left}: decorate the class with @dataclass(kw_only=True, eq=False)")

    def check_grid_has_exactly_n_levels(self, make: Make) -> None:
        """For every T and n ≤ T the grid has n strictly descending levels and then clean data."""

        def law(schedule: Schedule, n: int) -> None:
            grid = make(steps=n).grid(schedule)
            require(len(grid) == n, f"there are {len(grid)} levels")
            require(bool((grid.t.diff() < 0).all()), f"times do not descend: {grid.t.tolist()}")
            require(float(grid.t[0]) <= schedule.steps - 1 and float(grid.t[-1]) >= 0, "a time is outside")
            require(grid.levels[-1].sigma == 0, "the end is not clean")

        _walks(law)

    def check_more_steps_than_levels_are_refused(self, make: Make) -> None:
        """N > T is refused with IncompatibleParts, before anything is sampled."""
        _, schedule = next(paths(5))
        try:
            make(steps=6).grid(schedule)
        except IncompatibleParts:
            return
        raise AssertionError("6 steps were accepted on a schedule of 5")

    def check_point_is_found(self, make: Make) -> None:
        """Data that are always the same are found exactly, with any number of steps, on every path."""

        def law(schedule: Schedule, n: int) -> None:
            sampler: Sampler = make(steps=n)
            x = sampler.sample(PointMass(schedule, 0.7), schedule, begin(sampler, schedule), Noise(range(3)))
            close(x, torch.full_like(x, 0.7), 1e-9, "what is found and the point")

        _walks(law)

    def check_gaussian_data_keep_their_moments(self, make: Make) -> None:
        """Gaussian data come out with about their mean and standard deviation."""
        schedule = Tabled(**dict(zip(("alpha", "sigma"), _even(120), strict=True)))
        sampler: Sampler = make(steps=60)
        x = sampler.start(schedule, Noise(range(1)).normal(torch.empty(1, 10000).double(), "x_T")).x
        x0 = sampler.sample(DiagonalGaussian(schedule, 0.3, 0.5), schedule, x, Noise(range(1)))
        require(abs(float(x0.mean()) - 0.3) < 0.03, f"the mean is {float(x0.mean()):.4f}, not 0.3")
        require(abs(float(x0.std()) - 0.5) < 0.05, f"the standard deviation is {float(x0.std()):.4f}, not 0.5")

    def check_claimed_order(self, make: Make) -> None:
        """The error falls with the claimed order, less 0.2, as steps double: of points, or of moments if stochastic."""
        sampler: Sampler = make()
        found = order(measure(sampler, (60, 120), exploding(200)))
        applies(not math.isnan(found), "it draws noise and its steps are not affine")
        require(found >= sampler.order - 0.2, f"order {sampler.order} is claimed, {found:.2f} measured")

    def check_step_is_pure(self, make: Make) -> None:
        """A step changes neither state nor sampler, and equal calls give equal states."""

        def law(schedule: Schedule, n: int) -> None:
            sampler: Sampler = make(steps=n)
            before = copy.deepcopy(vars(sampler))
            grid, oracle = sampler.grid(schedule), DiagonalGaussian(schedule, 0.3, 0.5)
            state = State(begin(sampler, schedule), 0)
            while state.index < len(grid):
                kept = {key: value.clone() for key, value in state.to_tensors().items()}
                after = sampler.step(oracle, schedule, grid, state, Noise(range(3)))
                again = sampler.step(oracle, schedule, grid, state, Noise(range(3)))
                is_a(after.memory, Mapping, "the memory of a state")
                for key, value in state.to_tensors().items():
                    equal(value, kept[key], f"{key} of the state given")
                for key, value in after.to_tensors().items():
                    equal(again.to_tensors()[key], value, f"{key} of two equal calls")
                require(after.index == state.index + 1, "the index did not move by one")
                state = after
            require(vars(sampler) == before, "the sampler changed itself")

        _walks(law, examples=5)

    def check_resuming_is_bit_equal(self, make: Make) -> None:
        """Stopping after any step, writing the state as plain tensors and going on changes nothing."""

        def law(schedule: Schedule, n: int) -> None:
            sampler: Sampler = make(steps=n)
            states: list[State] = []
            oracle, noise = DiagonalGaussian(schedule, 0.3, 0.5), Noise(range(3))
            x0 = sampler.sample(oracle, schedule, begin(sampler, schedule), noise, states.append)
            for state in states:
                saved = {key: value.clone() for key, value in state.to_tensors().items()}
                resumed = make(steps=n).sample(oracle, schedule, State.from_tensors(saved), Noise(range(3)))
                equal(resumed, x0, f"resumed after step {state.index}")

        _walks(law, examples=5)

    def check_items_do_not_depend_on_their_batch(self, make: Make) -> None:
        """An item of a batch is the item that its seed gives alone."""

        def law(schedule: Schedule, n: int) -> None:
            sampler: Sampler = make(steps=n)
            oracle = DiagonalGaussian(schedule, 0.3, 0.5)
            x_T = begin(sampler, schedule)  # noqa: N806  # the papers' name
            together = sampler.sample(oracle, schedule, x_T, Noise(range(3)))
            for i in range(3):
                alone = sampler.sample(oracle, schedule, x_T[i : i + 1], Noise([i]))
                close(together[i : i + 1], alone, 1e-12, f"item {i}")

        _walks(law, examples=5)

    def check_noise_is_drawn_only_if_declared(self, make: Make) -> None:
        """A sampler that is not stochastic runs without noise; one that is gives other data for other seeds."""
        _, schedule = next(paths())
        sampler: Sampler = make(steps=8)
        oracle, x = DiagonalGaussian(schedule, 0.3, 0.5), begin(sampler, schedule)
        if sampler.stochastic:
            one, other = (sampler.sample(oracle, schedule, x, Noise(range(k, k + 3))) for k in (0, 9))
            require(not torch.equal(one, other), "it declares noise, and the seed makes no difference")
        else:
            sampler.sample(oracle, schedule, x, None)

    def check_precision(self, make: Make) -> None:
        """float32 is within 1e-4 of float64; shorter types stay finite and of their type."""
        for name, schedule in paths():
            sampler: Sampler = make(steps=12)
            oracle, exact = DiagonalGaussian(schedule, 0.3, 0.5), begin(sampler, schedule)
            wanted = sampler.sample(oracle, schedule, exact, _Rounded(range(3)))
            got = sampler.sample(oracle, schedule, exact.float(), _Rounded(range(3)))
            require(got.dtype == torch.float32, f"{name}: float32 became {got.dtype}")
            close(got, wanted, 1e-4, f"{name}: float32 and float64")
            short = sampler.sample(oracle, schedule, exact.bfloat16(), Noise(range(3)))
            require(short.dtype == torch.bfloat16, f"{name}: bfloat16 became {short.dtype}")
            require(bool(short.isfinite().all()), f"{name}: bfloat16 is not finite")

    def check_shapes_on_the_meta_device(self, make: Make) -> None:
        """A run on the meta device gives the shape of x_0, so recipes can be checked without memory."""
        _, schedule = next(paths())
        x = torch.empty(2, 3, 4, 4, device="meta")
        got = make(steps=2).sample(PointMass(schedule, 0.0), schedule, x, Noise(range(2)))
        require(got.shape == x.shape and got.device.type == "meta", "the shape or device changed")


class _Rounded(Noise):
    """Noise of equal numbers for float32 and float64."""

    def normal(self, like: Tensor, *key: Any) -> Tensor:
        return super().normal(torch.empty(like.shape), *key).to(like)


def _even(steps: int) -> tuple[Tensor, Tensor]:
    return from_log_snr(torch.linspace(9.0, -9.0, steps, dtype=torch.float64), "vp")


def _walks(law: Callable[[Schedule, int], None], examples: int = 12) -> None:
    """Try a law of (schedule, n) on schedules of every family and all numbers of steps that fit."""
    drawn = schedules(max_steps=10).flatmap(
        lambda schedule: st.fixed_dictionaries({"schedule": st.just(schedule), "n": st.integers(1, schedule.steps)})
    )
    for_all(law, drawn, examples=examples)
