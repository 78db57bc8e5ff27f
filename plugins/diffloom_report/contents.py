"""Contents: what the files in a run's folder say, as far as they have come.

A run that was killed anywhere leaves whole files and, at the end of some, a line cut short; so everything here may be
missing, and nothing that is there is broken.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diffloom_report import files

LOCK_FILE = "recipe.lock.yaml"
EVALUATION_FILE = "evaluation.json"
MAIN = "sampler"
"""The name under which an evaluation keeps the figures of the recipe's own sampler."""


@dataclass(frozen=True)
class SampleSet:
    """Samples that were drawn at one step.

    Attributes:
        step: When.
        pictures: Name → file; `image` is the sheet.
        record: Seeds, and what was asked.
    """

    step: int
    pictures: Mapping[str, Path]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Contents:
    """A run's folder as it is read.

    Attributes:
        directory: The folder.
        recipe: The recipe with every default, plain data.
        text: The same as YAML.
        versions: What the lock says of versions.
    """

    directory: Path
    recipe: Mapping[str, Any]
    text: str
    versions: Mapping[str, Any]

    @classmethod
    def of(cls, directory: Path) -> "Contents":
        """Return what a folder holds; RecipeError where it holds no run."""
        file = directory / LOCK_FILE
        if not file.is_file():
            from diffloom.errors import RecipeError

            raise RecipeError(f"{directory} holds no run", expected=f"the file {file}", remedy="train a recipe first")
        from ruamel.yaml import YAML

        text = file.read_text(encoding="utf-8")
        tree = dict(YAML(typ="safe", pure=True).load(text) or {})
        versions = tree.pop("lock", None) or {}
        return cls(directory, tree, _without_lock(text), versions)

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.recipe.get("name", self.directory.name))

    @property
    def steps(self) -> int:
        """How many steps the recipe asks for."""
        return int((self.recipe.get("train") or {}).get("steps", 0))

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl."""
        return [record for record in files.records(self.directory / files.METRICS) if "step" in record]

    @cached_property
    def timings(self) -> list[dict[str, Any]]:
        """The records of timings.jsonl."""
        return files.records(self.directory / files.TIMINGS)

    @cached_property
    def about(self) -> dict[str, Any]:
        """Machine, parts and data, as `diffloom_report.about` writes them."""
        return files.read_json(self.directory / files.ABOUT)

    @cached_property
    def messages(self) -> list[tuple[str, str]]:
        """What the user was told, as (when, text), each text once: its last time."""
        found: list[list[str]] = []
        for line in files.lines(self.directory / files.MESSAGES):
            match = re.match(r"\S+ (step \d+): (.*)", line)
            if match:
                found.append([match[1], match[2]])
            elif found:
                found[-1][1] += "\n" + line.strip()
        return [(when, text) for text, when in {text: when for when, text in found}.items()]

    @cached_property
    def samples(self) -> list[SampleSet]:
        """The samples that were drawn, ascending in step."""
        folder = self.directory / files.SAMPLES
        sets = []
        for file in sorted(folder.glob("step-*.json")):
            record = files.read_json(file)
            named = {name: folder / Path(picture).name for name, picture in record.get("pictures", {}).items()}
            pictures = {name: path for name, path in named.items() if path.is_file()}
            if pictures:
                sets.append(SampleSet(int(record["step"]), pictures, record))
        return sorted(sets, key=lambda one: one.step)

    @cached_property
    def evaluation(self) -> dict[str, dict[str, float]]:
        """Figures of the last evaluation: sampler → metric → value, in the recipe's order."""
        figures = files.read_json(self.directory / EVALUATION_FILE).get("figures", {})
        order = [MAIN, *((self.recipe.get("eval") or {}).get("samplers") or {}), *figures]
        return {name: figures[name] for name in dict.fromkeys(order) if figures.get(name)}

    @property
    def evaluated_at(self) -> int | None:
        """The step at which the last evaluation was made."""
        step = files.read_json(self.directory / EVALUATION_FILE).get("step")
        return step if isinstance(step, int) else None

    @property
    def checkpoints(self) -> list[int]:
        """The steps at which there are checkpoints."""
        return sorted(int(path.name[5:]) for path in (self.directory / "checkpoints").glob("step-[0-9]*"))

    @property
    def reached(self) -> int:
        """The last step of which anything is known."""
        logged = [int(record["step"]) for record in self.metrics[-1:]]
        return max([0, *logged, *self.checkpoints[-1:]])

    @property
    def status(self) -> str:
        """One of trained, stopped (the run was told to), and open (it runs, or was killed)."""
        if self.reached >= self.steps:
            return "trained"
        ended = bool(self.timings) and self.timings[-1].get("event") == "finished"
        return "stopped" if ended else "open"

    def curve(self, figure: str) -> list[tuple[float, float]]:
        """Return (step, value) of a figure, where it is finite."""
        pairs = ((record["step"], record.get(figure)) for record in self.metrics)
        return [(step, value) for step, value in pairs if isinstance(value, int | float) and math.isfinite(value)]

    def figures(self) -> list[str]:
        """Return the names of the logged figures, in the order in which they appear."""
        return list(dict.fromkeys(name for record in self.metrics for name in record if name != "step"))

    def sampler(self, name: str) -> dict[str, Any]:
        """Return the configuration of a sampler that was evaluated; empty where the recipe has none."""
        if name == MAIN:
            return dict(self.recipe.get("sampler") or {})
        return dict(((self.recipe.get("eval") or {}).get("samplers") or {}).get(name) or {})

    def sampler_steps(self, name: str) -> int | None:
        """Return how many steps a sampler takes: as many as its schedule where it names none."""
        config = self.sampler(name)
        if not config:
            return None
        steps = config.get("steps") or (self.recipe.get("schedule") or {}).get("steps")
        return int(steps) if steps else None


def _without_lock(text: str) -> str:
    """Return the YAML text of a lock file without its comments at the left edge and its key `lock`."""
    kept, inside = [], False
    for line in text.splitlines():
        if line[:1] not in (" ", "-", ""):
            inside = line.startswith("lock:")
        if not inside and not line.startswith("#"):
            kept.append(line)
    return "\n".join(kept).strip() + "\n"
