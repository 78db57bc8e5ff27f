"""Schedules made from another schedule, or read from a file."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffloom.errors import DataError, IncompatibleParts
from diffloom.grid import Spacing, spaced
from diffloom.schedule import Schedule


@dataclass(kw_only=True, eq=False)
class ZeroTerminalSNR(Schedule):
    """Another schedule, α shifted and scaled so that the last level is pure noise and the first as it was.

    α ← (α − α_T) α_1/(α_1 − α_T) (Lin et al. 2024, algorithm 1). Predict v, x0 or flow, and use trailing
    spacing.
    """

    examples: ClassVar = ({"schedule": {"type": "linear"}},)

    schedule: Annotated[Schedule, Field(description="what is rescaled; variance-preserving")]
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        """Take the number of levels over."""
        self.steps = self.schedule.steps

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        if self.schedule.path != "vp" or self.steps < 2:
            raise IncompatibleParts(
                "only a variance-preserving schedule can be rescaled to zero terminal SNR",
                where="schedule zero-terminal-snr",
                expected="a vp schedule of two levels or more",
                got=f"{self.steps} levels on the path '{self.schedule.path}'",
                remedy="nest a schedule such as linear or cosine",
            )
        alpha, sigma = self.schedule.table()
        first, last = alpha[0], alpha[-1]
        alpha = (alpha - last) * (first / (first - last))
        alpha[0] = first
        rescaled = ((1 - alpha) * (1 + alpha)).sqrt()
        rescaled[0] = sigma[0]
        return alpha, rescaled


@dataclass(kw_only=True, eq=False)
class Respaced(Schedule):
    """Some levels of another schedule, as a schedule of their own (Nichol & Dhariwal 2021, section 4).

    A network trained on the other schedule knows these levels by other times: this is for training on fewer
    levels. To sample with fewer, set the sampler's `steps` instead.
    """

    examples: ClassVar = ({"schedule": {"type": "linear"}, "steps": 50},)

    schedule: Annotated[Schedule, Field(description="whose levels are taken")]
    steps: Annotated[int, Field(gt=0, description="T, how many are taken")]
    spacing: Annotated[Spacing, Field(description="which are taken")] = "linspace"

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        times = spaced(self.schedule, self.steps, self.spacing).flip(0)
        return self.schedule.alpha(times), self.schedule.sigma(times)


class Table(Schedule):
    """The arrays `alpha` and `sigma`, or `alpha_bar` alone, of a .npz or .safetensors file.

    Args:
        file: The file; arrays of one dimension, the least noisy level first.
    """

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, str], ...]:
        """Return one table of each kind, written into a folder."""
        u = np.linspace(0.05, 0.95, 20)
        np.savez(folder / "flow.npz", alpha=1 - u, sigma=u)
        save_file({"alpha_bar": torch.linspace(0.99, 0.01, 20, dtype=torch.float64)}, folder / "vp.safetensors")
        return {"file": str(folder / "flow.npz")}, {"file": str(folder / "vp.safetensors")}

    def __init__(self, *, file: Annotated[str, Field(description="path of a .npz or .safetensors file")]) -> None:
        self.file = file

    @cached_property
    def steps(self) -> int:  # type: ignore[override]  # a number here too, read with the file
        """T, the number of levels in the file."""
        return int(self.table()[0].shape[0])

    def table(self) -> tuple[Tensor, Tensor]:
        """Return (α, σ); see `Schedule.table`."""
        columns = self._columns()
        if "alpha" in columns and "sigma" in columns:
            return columns["alpha"].double(), columns["sigma"].double()
        if "alpha_bar" in columns:
            bar = columns["alpha_bar"].double()
            return bar.sqrt(), (1 - bar).sqrt()
        raise DataError(
            "a file has no table of noise levels",
            where=self.file,
            expected="arrays alpha and sigma, or alpha_bar",
            got=", ".join(sorted(columns)) or "nothing",
        )

    def _columns(self) -> dict[str, Tensor]:
        path = Path(self.file)
        try:
            if path.suffix == ".safetensors":
                return load_file(path)
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
        except (OSError, ValueError, AttributeError, SafetensorError) as error:
            raise DataError(
                "a table of noise levels cannot be read",
                where=self.file,
                expected="a .npz or .safetensors file",
                got=f"{type(error).__name__}: {error}".splitlines()[0],
            ) from error
