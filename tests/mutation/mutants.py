"""The mutants: for every schedule and sampler, and what they stand on, a sign, an index or a factor that is wrong."""

from dataclasses import dataclass

NUMBERS = "tests/mathematics/test_schedule_numbers.py"
FURTHER = "tests/mathematics/test_further_schedules.py"
LAWS = "tests/mathematics/test_schedule_laws.py"
GRIDS = "tests/mathematics/test_grids.py"
PREDICTIONS = "tests/mathematics/test_predictions.py"
ANCESTRAL = "tests/mathematics/test_ancestral.py"
DDIM = "tests/mathematics/test_ddim.py"
SOLVERS = "tests/mathematics/test_solvers.py"
SINGLE = "tests/mathematics/test_single_solvers.py"
PARITY = "tests/mathematics/test_solver_parity.py"
CONTRACTS = "tests/mathematics/test_contracts.py"
ORACLES = "tests/mathematics/test_oracles.py"


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        file: What is changed.
        old: A text that stands in it once.
        new: What replaces it.
        tests: Files of tests that should notice, the likeliest first.
        only: Restricts the contracts, as pytest's `-k`.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    only: str = ""


def _mutants(file: str, tests: tuple[str, ...], *changes: tuple[str, str], only: str = "") -> list[Mutant]:
    return [Mutant(file, old, new, tests, only) for old, new in changes]


_DDPM, _DDIM, _SOLVERS = "plugins/diffloom_ddpm/", "plugins/diffloom_ddim/", "plugins/diffloom_solvers/"

SCHEDULES = [
    *_mutants(
        _DDPM + "schedules.py",
        (NUMBERS,),
        ("factor = 1000 / self.steps", "factor = self.steps / 1000"),
        ("self.beta_start * factor, self.beta_end * factor", "self.beta_end * factor, self.beta_start * factor"),
        (
            "self.beta_start**0.5, self.beta_end**0.5, self.steps).square()",
            "self.beta_start, self.beta_end, self.steps)",
        ),
        ("(u + self.s) / (1 + self.s)", "(u - self.s) / (1 + self.s)"),
        ("torch.pi / 2).cos().square()", "torch.pi / 2).cos()"),
        ("rise * (self.beta_end - self.beta_start) + self.beta_start", "rise * (self.beta_end - self.beta_start)"),
        ("(place[-1] - place) / (place[-1] - place[0])", "(place - place[0]) / (place[-1] - place[0])"),
        (".div(self.tau)", ".mul(self.tau)"),
        ("_ramp(-6.0, 6.0,", "_ramp(-6.0, 5.0,"),
    ),
    *_mutants(
        _SOLVERS + "curves.py",
        (FURTHER,),
        ("1 - (u + self.offset).sqrt()", "1 - (u - self.offset).abs().sqrt()"),
        ("self.beta_start, self.beta_end, self.steps).sqrt()", "self.beta_start, self.beta_end, self.steps)"),
        ("self.beta_start**0.5, self.beta_end**0.5", "self.beta_end**0.5, self.beta_start**0.5"),
        ("log_alpha_bar = -self.rate * _ramp(1 /", "log_alpha_bar = -self.rate * _ramp(2 /"),
        ("(0.5 * log_alpha_bar).exp()", "log_alpha_bar.exp()"),
        ("self.mu - self.b * torch.sign(0.5 - u)", "self.mu + self.b * torch.sign(0.5 - u)"),
        (
            "torch.arange(1, self.steps + 1, dtype=torch.float64) / (self.steps + 1)",
            "torch.arange(1, self.steps + 1, dtype=torch.float64) / (self.steps + 2)",
        ),
        ("rise * (1 - 2 * self.s) + self.s", "rise * (1 - 2 * self.s) - self.s"),
        ("** self.power", "** (self.power + 1)"),
        ("missing * (2 - missing)", "missing * (2 + missing)"),
    ),
    *_mutants(
        _SOLVERS + "flow.py",
        (FURTHER,),
        ("rest / (rest + k * step), k * step", "k * step / (rest + k * step), rest"),
        ("self.size / self.base_size", "self.base_size / self.size"),
        ("torch.arange(1, self.steps + 1", "torch.arange(0, self.steps"),
    ),
    *_mutants(
        _SOLVERS + "karras.py",
        (FURTHER,),
        ("end ** (1 / self.rho)", "end ** (-1 / self.rho)"),
        ("torch.linspace(low, high", "torch.linspace(high, low"),
        ("** self.rho\n", "** (self.rho - 1)\n"),
    ),
    *_mutants(
        _SOLVERS + "derived.py",
        (FURTHER,),
        ("(alpha - last) * (first / (first - last))", "(alpha - last) * (first / (first + last))"),
        ("first, last = alpha[0], alpha[-1]", "first, last = alpha[0], alpha[-2]"),
        ("((1 - alpha) * (1 + alpha)).sqrt()", "(1 - alpha).sqrt()"),
        ("self.spacing).flip(0)", "self.spacing)"),
        ("bar.sqrt(), (1 - bar).sqrt()", "bar, (1 - bar).sqrt()"),
    ),
]

SAMPLERS = [
    *_mutants(
        _DDPM + "ancestral.py",
        (ANCESTRAL, DDIM),
        ("t, s = grid.times[state.index : state.index + 2]", "s, t = grid.times[state.index : state.index + 2]"),
        ("posterior(state.x, said.x0, t, s)", "posterior(said.x0, state.x, t, s)"),
        ("(1.0, posterior.mean), (math.sqrt(variance), z)", "(1.0, posterior.mean), (-variance, z)"),
        ('small if self.variance == "fixed-small" else large', 'large if self.variance == "fixed-small" else small'),
        ("(spread.to(working_dtype(spread)) + 1) / 2", "(spread.to(working_dtype(spread)) - 1) / 2"),
        ("math.log(large) - math.log(small)", "math.log(small) - math.log(large)"),
        ("transition(t, s)[1]", "transition(t, s)[0]"),
    ),
    *_mutants(
        _DDIM + "sampler.py",
        (DDIM,),
        ("-math.expm1(here.log_snr - there.log_snr)", "-math.expm1((here.log_snr - there.log_snr) / 2)"),
        ("1 - eta * eta * fresh", "1 + eta * eta * fresh"),
        ("(here.sigma if self.noise", "(there.sigma if self.noise"),
        (
            "here, there = grid.levels[state.index : state.index + 2]",
            "there, here = grid.levels[state.index : state.index + 2]",
        ),
        ("(there.alpha, said.x0), (direction, said.eps)", "(there.alpha, said.x0), (-direction, said.eps)"),
        ("state.index == len(grid) - 1:", "state.index == len(grid):"),
        ("rederive=self.rederive", "rederive=not self.rederive"),
    ),
    *_mutants(
        _DDIM + "inversion.py",
        (DDIM,),
        ("high.sigma - ratio * low.sigma", "high.sigma + ratio * low.sigma"),
        (
            'q if ask == "ahead" else min(q + 1, len(grid) - 1)',
            'q + 1 if ask == "ahead" else min(q + 1, len(grid) - 1)',
        ),
        ("(1 - w) * theta).sin() / safe", "(1 + w) * theta).sin() / safe"),
    ),
    *_mutants(
        _SOLVERS + "steps.py",
        (SOLVERS, PARITY),
        ("there.sigma - ratio * here.sigma", "there.sigma + ratio * here.sigma"),
        ("ratio = there.alpha / here.alpha", "ratio = here.alpha / there.alpha"),
        ("(there.alpha, said.x0), (there.sigma, said.eps)", "(there.alpha, said.x0), (-there.sigma, said.eps)"),
        ("there.sigma / here.sigma * math.exp(-noise)", "there.sigma / here.sigma * math.exp(noise)"),
        ("there.alpha * -math.expm1(-(h + noise))", "there.alpha * -math.expm1(-(h - noise))"),
        ("math.sqrt(-math.expm1(-2 * noise))", "math.sqrt(-math.expm1(-noise))"),
        ("(there.log_snr - here.log_snr) / 2", "(there.log_snr - here.log_snr)"),
        ("grid.levels[state.index - k]", "grid.levels[state.index - k + 1]"),
        ("enumerate(latest_first[:limit], 1)", "enumerate(latest_first[: limit + 1][1:], 1)"),
    ),
    *_mutants(
        _SOLVERS + "euler.py",
        (SOLVERS,),
        ("grid.levels[state.index + 1]), state.index + 1)", "grid.levels[state.index]), state.index + 1)"),
    ),
    *_mutants(
        _SOLVERS + "euler_ancestral.py",
        (SOLVERS,),
        ("here.log_snr - there.log_snr", "(here.log_snr - there.log_snr) / 2"),
        ("math.sqrt(1 - fresh**2)", "math.sqrt(1 + fresh**2)"),
        ("(down, said.eps)", "(up, said.eps)"),
    ),
    *_mutants(
        _SOLVERS + "heun.py",
        (SOLVERS,),
        ("(0.5, said.eps), (0.5, again.eps)", "(0.5, said.eps), (-0.5, again.eps)"),
        ("reached, grid.t[state.index + 1], there", "reached, grid.t[state.index], there"),
        ("transfer(x, weighted", "transfer(reached, weighted"),
    ),
    *_mutants(
        _SOLVERS + "edm.py",
        (SOLVERS,),
        ("up.sigma**2 - (up.alpha", "up.sigma**2 + (up.alpha"),
        ("math.sqrt(2) - 1", "math.sqrt(2) + 1"),
        ("- 2 * math.log1p(gamma)", "+ 2 * math.log1p(gamma)"),
        ("self.churn / count", "self.churn * count"),
        ("grid, state, x, t, up)", "grid, state, x, t, here)"),
        ("relative < self.churn_min or", "relative > self.churn_min or"),
        (" * self.noise_scale", ""),
    ),
    *_mutants(
        _SOLVERS + "dpm_solver.py",
        (SOLVERS, PARITY),
        ("(1 / r0, m), (-1 / r0,", "(1 / r0, m), (1 / r0,"),
        ("step.pull / 2, first", "-step.pull / 2, first"),
        ("math.expm1(-step.length) / step.length + 1", "math.expm1(-step.length) / step.length - 1"),
        ("gain(past[1][1], past[0][1]) / h", "gain(past[0][1], here) / h"),
        ("(1.0, first), (r0, second)", "(1.0, first), (-r0, second)"),
        ("there.alpha / 2 - curve / step.length", "there.alpha / 2 + curve / step.length"),
        ("(here.log_snr + there.log_snr) / 2", "(here.log_snr + 2 * there.log_snr) / 3"),
        ('"2m": 1, "3m": 2', '"2m": 1, "3m": 1'),
        ("min(wanted, left - 1)", "min(wanted, left)"),
        ('remember("x0", [said.x0, *history]', 'remember("x0", [*history, said.x0]'),
    ),
    *_mutants(
        _SOLVERS + "unipc.py",
        (SOLVERS, PARITY),
        ("share = -there.alpha * scale", "share = there.alpha * scale"),
        ("math.expm1(-h) / -h - 1, 1.0", "math.expm1(-h) / -h + 1, 1.0"),
        ("phi = phi / -h - 1 / factorial", "phi = phi / h - 1 / factorial"),
        ("factorial *= j + 1", "factorial *= j"),
        ("else math.expm1(-h)", "else -math.expm1(-h)"),
        ("(log - here.log_snr / 2) / h", "(log + here.log_snr / 2) / h"),
        ('State(state.memory["x"], state.index - 1)', 'State(state.memory["x"], state.index)'),
        ("node**j for node", "node ** (j + 1) for node"),
        ("min(self.solver_order, left) - 1", "min(self.solver_order, left + 1) - 1"),
        ("past, start, here, arrived=m", "past, start, here, arrived=history[0]"),
    ),
    *_mutants(
        _SOLVERS + "pndm.py",
        (SINGLE, SOLVERS, PARITY),
        ("(3 / 2, -1 / 2)", "(3 / 2, 1 / 2)"),
        ("(23 / 12, -16 / 12, 5 / 12)", "(23 / 12, -16 / 12, -5 / 12)"),
        ("(55 / 24, -59 / 24, 37 / 24, -9 / 24)", "(55 / 24, -59 / 24, -9 / 24, 37 / 24)"),
        ("(0.5, said.eps), (0.5, ahead.eps)", "(0.5, said.eps), (-0.5, ahead.eps)"),
        ("(1 / 3, second), (1 / 3, third), (1 / 6, fourth)", "(1 / 3, second), (1 / 6, third), (1 / 3, fourth)"),
        ("(grid.t[state.index] + grid.t[state.index + 1]) / 2", "(grid.t[state.index] - grid.t[state.index + 1]) / 2"),
        ("weighted(*zip(WEIGHTS[len(values) - 1]", "weighted(*zip(WEIGHTS[-1]"),
        ("[said.eps, *history], self.solver_order - 1", "[said.eps, *history], self.solver_order - 2"),
    ),
    *_mutants(
        _SOLVERS + "deis.py",
        (SOLVERS, PARITY),
        ("nodes = [-here.log_snr / 2", "nodes = [here.log_snr / 2"),
        ("-here.log_snr / 2, -there.log_snr / 2)", "-there.log_snr / 2, -here.log_snr / 2)"),
        ("a + (start - other) * b", "a - (start - other) * b"),
        ("math.exp(length) - k * value", "math.exp(length) + k * value"),
        ("(there.alpha * weight, eps)", "(here.alpha * weight, eps)"),
    ),
    *_mutants(
        _SOLVERS + "lcm.py",
        (SINGLE, PARITY),
        ("(out, said.x0), (skip, state.x)", "(out, said.x0), (-skip, state.x)"),
        ("j * (total // origin) - 1", "j * (total // origin)"),
        ("tau / math.sqrt(size)", "tau / size"),
        ("levels[i * origin // count]", "levels[-1 - i * origin // count]"),
        ("(there.alpha, x), (there.sigma,", "(there.alpha, x), (here.sigma,"),
    ),
]

FOUNDATIONS = [
    *_mutants(
        "core/diffloom/schedule.py",
        (LAWS, NUMBERS),
        (
            "-sigma_t.square() * torch.expm1(log_snr_t - log_snr_s)",
            "sigma_t.square() * torch.expm1(log_snr_t - log_snr_s)",
        ),
        ("alpha_t / alpha_s, -sigma", "alpha_s / alpha_t, -sigma"),
        ("kept = -torch.expm1(log_snr_t - log_snr_s)", "kept = -torch.expm1((log_snr_t - log_snr_s) / 2)"),
        (".exp() * sigma_s / sigma_t", ".exp() * sigma_t / sigma_s"),
        ("sigma_s.square() * kept", "sigma_s * kept"),
        ("(alpha_s * kept, x0)", "(-alpha_s * kept, x0)"),
        ("self.transition(t, t - 1 if", "self.transition(t, t - 2 if"),
        ("weighted((alpha, x0), (sigma, noise))", "weighted((alpha, x0), (-sigma, noise))"),
        ("self._demand_all(log_snr.diff() < 0", "self._demand_all(log_snr.diff() <= 0"),
    ),
    *_mutants(
        "core/diffloom/path.py",
        (LAWS, NUMBERS),
        ("torch.log1p(-beta).cumsum(0)", "torch.log1p(beta).cumsum(0).neg()"),
        ("(0.5 * log_alpha_bar).exp(), (-torch", "(0.25 * log_alpha_bar).exp(), (-torch"),
        ("alpha_bar[1:] / alpha_bar[:-1]", "alpha_bar[:-1] / alpha_bar[1:]"),
        ("(start - log_snr) / (start - stop)", "(start - log_snr) / (start + stop)"),
        ("return left - 1 + weight", "return left + weight"),
        ("right=True) - 1", "right=False)"),
        ("to_zero = 1 - torch", "to_zero = torch"),
        ("1 / (cos + sin) if", "1 / (cos - sin) if"),
        ("index = (t.long() + 1)", "index = t.long()"),
    ),
    *_mutants(
        "core/diffloom/grid.py",
        (GRIDS,),
        ("[i * (total // count) for i", "[(i + 1) * (total // count) - 1 for i"),
        ("round(total - i * total / count) - 1", "round(total - i * total / count) - 2"),
        ("round(i * (total - 1) / (count - 1))", "round(i * total / count)"),
        ("4 * total * i * i // (5", "5 * total * i * i // (5"),
        ("rho * (ends[0] + place * (ends[1] - ends[0])).log()", "rho * (ends[0] - place * (ends[1] - ends[0])).log()"),
        ("log_noise = start + place", "log_noise = start - place"),
        ("return count - min(made, count)", "return min(made, count)"),
        ("math.floor(strength * count)", "math.ceil(strength * count)"),
        ("math.hypot(self.levels[0].alpha, self.levels[0].sigma)", "self.levels[0].sigma"),
    ),
    *_mutants(
        "core/diffloom/sampler.py",
        (GRIDS,),
        ("(level.alpha, x0), (level.sigma, z)", "(level.alpha, x0), (-level.sigma, z)"),
        (
            "len(times) + 1, self.spacing, offset=self.offset, rho=self.rho)[:-1]",
            "len(times) + 1, self.spacing, offset=self.offset, rho=self.rho)[1:]",
        ),
        ("offset=self.offset, rho=self.rho)\n        if self.final", "rho=self.rho)\n        if self.final"),
    ),
    *_mutants(
        "core/diffloom/prediction.py",
        (PREDICTIONS,),
        ("weighted((alpha / size, x_t), (-sigma / size, mean))", "weighted((alpha / size, x_t), (sigma / size, mean))"),
        ("weighted((1 / sigma, x_t), (-alpha / sigma, x0))", "weighted((1 / sigma, x_t), (alpha / sigma, x0))"),
        ("weighted((1 / alpha, x_t), (-sigma / alpha, eps))", "weighted((1 / alpha, x_t), (sigma / alpha, eps))"),
        ("weighted((alpha, eps), (-sigma, x0))", "weighted((-alpha, eps), (sigma, x0))"),
        ("weighted((1.0, eps), (-1.0, x0))", "weighted((-1.0, eps), (1.0, x0))"),
        ("weighted((-1 / sigma, self.eps))", "weighted((1 / sigma, self.eps))"),
        ("size = alpha + sigma", "size = alpha - sigma"),
        ("output[:, :channels], output[:, channels:]", "output[:, channels:], output[:, :channels]"),
        ("self.x0.clamp(-limit, limit)", "self.x0.clamp(0, limit)"),
    ),
    *_mutants(
        "core/diffloom/testing/oracles.py",
        (ORACLES, SOLVERS, DDIM),
        ("residual = (x_t - alpha * mean) /", "residual = (x_t + alpha * mean) /"),
        ("alpha_s * mean + (x_t - alpha_t * mean) * ratio**0.5", "alpha_s * mean + (x_t - alpha_t * mean) * ratio"),
        ("- 0.5 * residual**2 * total", "+ 0.5 * residual**2 * total"),
        ("torch.where(upper[..., None], -z, z)", "torch.where(upper[..., None], z, -z)"),
    ),
    *_mutants(
        "core/diffloom/testing/convergence.py",
        (CONTRACTS,),
        ("math.log(before.error / after.error)", "math.log(after.error / before.error)"),
        (
            "state.x[1] - oracle.flow(x[1:], grid.times[0], 0)[0]",
            "state.x[1] - oracle.flow(x[1:], grid.times[0], -1)[0]",
        ),
        ("(start / grid.scale) ** 2 * spread", "(start / grid.scale) * spread"),
        only="claimed-order",
    ),
]

MUTANTS: tuple[Mutant, ...] = (*SCHEDULES, *SAMPLERS, *FOUNDATIONS)
