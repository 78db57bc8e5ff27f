"""Strategies: hypothesis draws of schedules, times, images and conditions, for laws that hold for all."""

from collections.abc import Sequence
from typing import get_args

import torch
from hypothesis import strategies as st
from torch import Tensor

from diffloom.condition import Affine, Condition
from diffloom.denoiser import Denoiser
from diffloom.path import Path, from_log_snr
from diffloom.schedule import Schedule

__all__ = ["Tabled", "conditions", "images", "schedules", "timesteps"]


class Tabled(Schedule):
    """A schedule that is exactly the given table.

    Args:
        alpha: (T,) float64.
        sigma: (T,) float64.
    """

    def __init__(self, *, alpha: Tensor, sigma: Tensor) -> None:
        self.steps = alpha.shape[0]
        self._table = alpha, sigma

    def table(self) -> tuple[Tensor, Tensor]:
        """Return the table."""
        return self._table

    def __repr__(self) -> str:
        """Return the table in short, for hypothesis to print."""
        alpha, sigma = (", ".join(f"{value:.6g}" for value in column.tolist()) for column in self._table)
        return f"Tabled(alpha=[{alpha}], sigma=[{sigma}])"


@st.composite
def schedules(
    draw: st.DrawFn,
    *,
    min_steps: int = 1,
    max_steps: int = 40,
    paths: Sequence[Path] = get_args(Path),
    zero_terminal_snr: bool | None = None,
) -> Schedule:
    """Draw a schedule of any family, with log-SNR falling by random amounts from about 12 to about −12.

    Args:
        draw: Given by hypothesis.
        min_steps: The least T.
        max_steps: The largest T.
        paths: The families to choose from.
        zero_terminal_snr: Whether the last level is pure noise; either by default. Never so on `ve` paths.
    """
    steps = draw(st.integers(min_steps, max_steps))
    path = draw(st.sampled_from(list(paths)))
    falls = draw(st.lists(st.floats(0.05, 1.0), min_size=steps, max_size=steps))
    start = draw(st.floats(4.0, 12.0))
    whole = torch.tensor(falls, dtype=torch.float64).cumsum(0)
    log_snr = start - whole * min(1.0, 2 * start / float(whole[-1]))
    alpha, sigma = from_log_snr(log_snr, "vp" if path == "other" else path)
    if path == "other":  # a radius that belongs to no family
        radius = 1 + 0.3 * torch.linspace(0.1, 1, steps, dtype=torch.float64)
        alpha, sigma = radius * alpha, radius * sigma
    if path != "ve" and draw(st.booleans() if zero_terminal_snr is None else st.just(zero_terminal_snr)):
        end = torch.hypot(alpha[-1:], sigma[-1:]) if path == "other" else torch.ones(1, dtype=torch.float64)
        alpha = torch.cat([alpha[:-1], torch.zeros(1, dtype=torch.float64)])
        sigma = torch.cat([sigma[:-1], end])
    return Tabled(alpha=alpha, sigma=sigma)


def timesteps(
    schedule: Schedule, *, clean: bool = False, real: bool = True
) -> st.SearchStrategy[int] | st.SearchStrategy[int | float]:
    """Draw a time of a schedule.

    Args:
        schedule: Whose times.
        clean: Whether times below 0, down to −1, may come.
        real: Whether times between the table's points may come.
    """
    low = -1 if clean else 0
    whole = st.integers(low, schedule.steps - 1)
    return whole | st.floats(low, schedule.steps - 1, allow_nan=False) if real else whole


@st.composite
def images(
    draw: st.DrawFn,
    *,
    batch: int | None = None,
    channels: int | None = None,
    size: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Draw images (B, C, *size) with values in [−1, 1]; what is not given is drawn too, small."""
    shape = (
        draw(st.integers(1, 3)) if batch is None else batch,
        draw(st.integers(1, 4)) if channels is None else channels,
        *((draw(st.integers(1, 6)), draw(st.integers(1, 6))) if size is None else size),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1).to(dtype)


@st.composite
def conditions(draw: st.DrawFn, denoiser: Denoiser, *, batch: int = 2, size: tuple[int, ...] = (8, 8)) -> Condition:
    """Draw a condition that fills a denoiser's ports, and edits some of its taps, with normal numbers.

    Args:
        draw: Given by hypothesis.
        denoiser: Whose ports.
        batch: B.
        size: Spatial size of x_t.
    """
    ports = denoiser.ports
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    tokens = draw(st.integers(1, 4))
    edited = draw(st.lists(st.sampled_from(sorted(ports.affine)), unique=True)) if ports.affine else []
    shapes = {tap.name: (tap.channels, *(side // tap.stride for side in size)) for tap in denoiser.taps}
    affine = {name: Affine(0.1 * normal(batch, *shapes[name]), 0.1 * normal(batch, *shapes[name])) for name in edited}
    return Condition(
        context=normal(batch, tokens, ports.context) if ports.context else None,
        vector=normal(batch, ports.vector) if ports.vector and draw(st.booleans()) else None,
        concat=normal(batch, ports.concat, *size) if ports.concat else None,
        affine=affine,
    )
