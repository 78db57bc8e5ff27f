"""What every metric must do, on an evaluation of made-up images."""

import math
import tempfile
from functools import cache
from pathlib import Path
from typing import ClassVar, cast

from diffloom.errors import IncompatibleParts
from diffloom.metric import Metric
from diffloom.space import Space
from diffloom.testing.contracts.base import Contract, Make, NotApplicable, is_a, require
from diffloom.testing.judged import Judged


class MetricContract(Contract):
    """A metric gives named numbers that depend on the evaluation alone."""

    kind: ClassVar[str] = "metric"

    def check_figures(self, make: Make) -> None:
        """There are figures, each with a name and a number; NaN says that one is undefined."""
        found = self._measured(make())
        is_a(found, dict, "what measure returns")
        require(bool(found), "there are none")
        for name, value in found.items():
            require(isinstance(name, str) and bool(name), f"{name!r} is no name")
            require(isinstance(value, float), f"{name} is {value!r}, no float")

    def check_repeatable(self, make: Make) -> None:
        """Equal evaluations give equal figures to three digits, whatever is kept in the cache from before."""
        first, again = self._measured(make()), self._measured(make())
        require(set(again) == set(first), f"the names were {', '.join(first)}, and then {', '.join(again)}")
        for name, value in first.items():
            same = math.isclose(again[name], value, rel_tol=1e-3, abs_tol=1e-3)
            same = same or (math.isnan(value) and math.isnan(again[name]))
            require(same, f"{name} was {value!r}, and then {again[name]!r}")

    def check_other_answers_give_other_figures(self, make: Make) -> None:
        """Answers of noise are not judged as the truth is."""
        near, far = (self._measured(make(), error) for error in (0.0, 3.0))
        require(near != far, f"both are {near}")

    def _measured(self, metric: Metric, error: float = 0.1) -> dict[str, float]:
        evaluation = Judged(Path(_kept().name), cast(Space, self.provided[Space]), error=error)
        try:
            return metric.measure(evaluation)
        except IncompatibleParts as reason:
            raise NotApplicable(f"it cannot judge made-up pairs of images: {reason}") from reason


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    """Return the cache of all evaluations, so that a network is trained once; it goes when Python ends."""
    return tempfile.TemporaryDirectory(prefix="diffloom-judged-")
