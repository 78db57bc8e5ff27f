"""What every schedule must do."""

import pickle
from typing import ClassVar

import torch
from hypothesis import strategies as st

from diffloom.errors import ConfigError, IncompatibleParts
from diffloom.schedule import Schedule
from diffloom.testing.contracts.base import Contract, Make, applies, close, equal, for_all, require, takes
from diffloom.testing.strategies import timesteps


class ScheduleContract(Contract):
    """α and σ are a table with strictly falling log-SNR; all that is derived from it is consistent."""

    kind: ClassVar[str] = "schedule"

    def check_table(self, make: Make) -> None:
        """The table is float64 of T levels, finite, with log-SNR strictly falling."""
        schedule: Schedule = make()
        schedule.alpha(0)  # validates
        require(bool((schedule.log_snr(torch.arange(-1, schedule.steps)).diff() < 0).all()), "log-SNR rises")

    def check_any_number_of_levels(self, make: Make) -> None:
        """The table is right for every T, or T is refused: by its bounds, or with IncompatibleParts."""
        applies(takes(make(), "steps"), "it takes no `steps`")

        def law(steps: int) -> None:
            try:
                schedule: Schedule = make(steps=steps)
                schedule.alpha(0)  # validates
            except (IncompatibleParts, ConfigError):
                return
            require(schedule.steps == steps, f"it has {schedule.steps} levels")

        for_all(law, st.fixed_dictionaries({"steps": st.integers(1, 64)}), examples=15)

    def check_repeatable(self, make: Make) -> None:
        """The table is the same whenever and wherever it is asked for."""
        one, other = make(), make()
        twin = pickle.loads(pickle.dumps(one))
        for column in range(2):
            equal(one.table()[column], other.table()[column], "two instances")
            equal(one.table()[column], one.table()[column], "two calls")
            equal(one.table()[column], twin.table()[column], "a pickled copy")

    def check_table_is_kept_on_the_cpu(self, make: Make) -> None:
        """A device block around the first use does not move the table."""
        with torch.device("meta"):
            require(float(make().sigma(0)) > 0, "σ_0 is not positive")

    def check_real_times(self, make: Make) -> None:
        """Real times meet the table, fall strictly between its points, and are found again from log-SNR."""
        schedule: Schedule = make()
        t = torch.linspace(-1, schedule.steps - 1, min(4 * schedule.steps, 4000) + 1, dtype=torch.float64)
        log_snr = schedule.log_snr(t)
        require(bool((log_snr.diff() < 0).all()), "log-SNR rises between levels")
        close(schedule.time(log_snr), t, 1e-8, "time(log_snr(t)) and t")
        whole = torch.arange(schedule.steps)
        equal(schedule.alpha(whole.double()), schedule.alpha(whole), "α at integer and equal real times")

    def check_transitions_lead_from_marginal_to_marginal(self, make: Make) -> None:
        """α_t = α_{t|s} α_s and σ_t² = α_{t|s}² σ_s² + σ²_{t|s}."""
        schedule: Schedule = make()
        t = torch.arange(schedule.steps)
        for s in (t - 1, torch.div(t, 2, rounding_mode="floor") - 1):
            ratio, variance = schedule.transition(t, s)
            require(bool((variance > 0).all()), "a transition has no noise")
            close(ratio * schedule.alpha(s), schedule.alpha(t), 1e-12, "α")
            close(ratio**2 * schedule.sigma(s) ** 2 + variance, schedule.sigma(t) ** 2, 1e-9, "σ²")

    def check_posteriors_keep_the_marginal(self, make: Make) -> None:
        """Going back through q(x_s | x_t, x_0) gives q(x_s | x_0) again."""
        schedule: Schedule = make()
        t = torch.arange(schedule.steps)
        s, one, zero = t - 1, torch.ones(schedule.steps).double(), torch.zeros(schedule.steps).double()
        of_x_t = schedule.posterior(one, zero, t, s).mean
        of_x0 = schedule.posterior(zero, one, t, s)
        close(of_x0.mean + of_x_t * schedule.alpha(t), schedule.alpha(s), 1e-10, "mean")
        variance = of_x_t**2 * schedule.sigma(t) ** 2 + of_x0.variance
        close(variance, schedule.sigma(s) ** 2, 1e-9, "variance")

    def check_posterior_is_bayes_rule(self, make: Make) -> None:
        """q(x_s | x_t, x_0) is q(x_t | x_s) q(x_s | x_0) with precisions added, at real times too."""
        schedule: Schedule = make()
        x_t, x0 = torch.tensor([-0.7]).double(), torch.tensor([0.4]).double()

        def law(s: float, t: float) -> None:
            s, t = min(s, t), max(s, t)
            if t - s < 1e-3:
                return
            ratio, variance = schedule.transition(t, s)
            prior, step = 1 / schedule.sigma(s) ** 2, ratio / variance
            precision = prior + ratio * step
            got = schedule.posterior(x_t, x0, t, s)
            close(got.variance * precision, torch.ones(()).double(), 1e-6, "variance and 1/precision")
            mean = (prior * schedule.alpha(s) * x0 + step * x_t) / precision
            close(got.mean, mean, 1e-6, "mean")

        time = timesteps(schedule)
        for_all(law, st.fixed_dictionaries({"s": time, "t": time}))
