"""The two-step Adams–Bashforth method on the probability flow."""

from dataclasses import dataclass

from diffloom import Grid, Noise, Sampler, Schedule, State
from diffloom.arithmetic import weighted
from diffloom.sampler import Model


@dataclass(kw_only=True, eq=False)
class Adams(Sampler):
    """d(x/α) = ε d(σ/α), with ε extrapolated from the last two levels; the first step is DDIM's."""

    order = 2

    def step(self, model: Model, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        """Go to the next level; see `Sampler.step`."""
        here, there = grid.levels[state.index : state.index + 2]
        said = self.denoise(model, state.x, grid.t[state.index], here)
        x = weighted((there.alpha, said.x0), (there.sigma, said.eps))  # first order
        if state.index > 0:
            before = grid.levels[state.index - 1]
            if before.alpha > 0:
                h, last = (b.sigma / b.alpha - a.sigma / a.alpha for a, b in ((here, there), (before, here)))
                share = there.alpha * h * h / last / 2
                x = weighted((1.0, x), (share, said.eps), (-share, state.memory["eps"]))
        return State(x, state.index + 1, memory={"eps": said.eps})
