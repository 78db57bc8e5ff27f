"""Quality against evaluations: every sampler on the weights of one trained run, as a Markdown table.

    python -m tests.benchmarks.samplers runs/quickstart
    python -m tests.benchmarks.samplers runs/quickstart --count 200 --spacing trailing log-snr --only ddim unipc

Each sampler walks with its default values and with those of its `examples`, as many steps as fit the evaluations. The
judge is a classifier of the run's own data: the share of images that show the class asked for, and the Fréchet distance
of its features between made and real images (`fid/classifier`).
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from diffloom.engine.evaluate import Evaluation
from diffloom.engine.run import Run
from diffloom.errors import DiffloomError
from diffloom.kinds import registry
from diffloom.metric import Metric
from diffloom.noise import Noise
from diffloom.sampler import Sampler
from diffloom.schedule import Schedule
from diffloom.testing.oracles import PointMass

METRICS = ("accuracy", "fid")
FEW, MANY, REFERENCE = 10, 50, "ddim"


@dataclass
class Row:
    """One sampler in one setting.

    Attributes:
        name: Its name.
        settings: Its parameters, as a recipe writes them, without steps.
        figures: Evaluations asked for → figures.
    """

    name: str
    settings: Mapping[str, Any]
    figures: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The sampler with what its settings change."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.settings.items())])

    def sampler(self, steps: int) -> Sampler:
        """Return the sampler with a number of steps."""
        return cast(Sampler, registry.build("sampler", self.name, **{**self.settings, "steps": steps}))


def main() -> None:
    """Judge what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[5, 10, 20, 50], help="how many, for each item")
    parser.add_argument("--count", type=int, default=500, help="images judged in each cell")
    parser.add_argument("--spacing", nargs="+", default=["trailing"], help="of the levels")
    parser.add_argument("--only", nargs="+", help="names of samplers; all by default")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    run = Run.of(options.run, hooks=[])
    run.load()
    found = list(rows(options.only or registry.names("sampler"), options.spacing))
    for row in found:
        for budget in options.evaluations:
            judge(run, row, budget, options.count)
    print("\n".join(table(found, options.evaluations)))  # noqa: T201
    print("\n" + verdict(found))  # noqa: T201
    if options.json:
        options.json.write_text(json.dumps([vars(row) for row in found], indent=1, default=str))


def rows(names: Sequence[str], spacings: Sequence[str]) -> Iterator[Row]:
    """Yield every setting of every sampler; a setting that names its own spacing keeps it."""
    for name in names:
        seen: list[Mapping[str, Any]] = []
        examples: Any = getattr(registry.get("sampler", name), "examples", ({},))
        for example in examples:
            for spacing in spacings:
                settings = {"spacing": spacing, **example}
                if settings not in seen:
                    seen.append(settings)
                    yield Row(name, settings)


def judge(run: Run, row: Row, budget: int, count: int) -> None:
    """Add the figures of one sampler within some evaluations to its row; none where it cannot walk so few steps."""
    steps = fitting(row, run.system.schedule, budget)
    if steps is None:
        return
    started = time.perf_counter()
    evaluation = Evaluation(
        run.system,
        train=run.dataset,
        held_out=run.held_out(),
        count=count,
        batch=min(count, 250),
        seed=run.recipe.header.seed,
        cache=run.directory / "cache",
    )
    figures: dict[str, float] = {}
    with run.system.sampled_by(row.sampler(steps)):
        for metric in METRICS:
            figures |= cast(Metric, registry.build("metric", metric)).measure(evaluation)
    seconds = time.perf_counter() - started
    row.figures[budget] = {"steps": steps, "seconds": seconds, **figures}
    told = f"accuracy {figures['accuracy']:.3f}, fid {figures['fid/classifier']:.3f}"
    print(f"{row.title}: {steps} steps for {budget} evaluations: {told}, {seconds:.0f} s", flush=True)  # noqa: T201


def fitting(row: Row, schedule: Schedule, budget: int) -> int | None:
    """Return the most steps that ask the network at most `budget` times."""
    for steps in range(min(budget, schedule.steps), 0, -1):
        try:
            if asked(row.sampler(steps), schedule) <= budget:
                return steps
        except DiffloomError:
            continue
    return None


def asked(sampler: Sampler, schedule: Schedule) -> int:
    """Return how often a sampler asks the network."""
    oracle, calls = PointMass(schedule, 0.0), 0

    def model(x: torch.Tensor, t: torch.Tensor) -> Any:
        nonlocal calls
        calls += 1
        return oracle(x, t)

    sampler.sample(model, schedule, torch.ones(1, 1), Noise([0]))
    return calls


def table(found: Sequence[Row], budgets: Sequence[int]) -> Iterator[str]:
    """Yield the lines of the table: accuracy and Fréchet distance by sampler and evaluations."""
    yield "| sampler | " + " | ".join(f"{budget}" for budget in budgets) + " |"
    yield "| --- |" + " --- |" * len(budgets)
    for row in found:
        cells = []
        for budget in budgets:
            figures = row.figures.get(budget)
            cells.append(f"{figures['accuracy']:.3f} / {figures['fid/classifier']:.2f}" if figures else "–")
        yield f"| {row.title} | " + " | ".join(cells) + " |"


def verdict(found: Sequence[Row]) -> str:
    """Return which sampler is best at few evaluations, held against DDIM at many."""
    few = [row for row in found if FEW in row.figures]
    if not few:
        return f"nothing was judged at {FEW} evaluations"
    best = min(few, key=lambda row: row.figures[FEW]["fid/classifier"])
    said = f"Best at {FEW} evaluations: {best.title}, {_said(best.figures[FEW])}."
    reference = [row for row in found if row.name == REFERENCE and MANY in row.figures]
    if reference:
        said += f" {reference[0].title} at {MANY}: {_said(reference[0].figures[MANY])}."
    return said


def _said(figures: Mapping[str, float]) -> str:
    return f"accuracy {figures['accuracy']:.3f}, Fréchet distance {figures['fid/classifier']:.2f}"


if __name__ == "__main__":
    main()
