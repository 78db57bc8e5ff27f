"""Enlarge: an image of any size, block by block, in bounded memory, resumable.

The image is cut into blocks. Each goes through the system with a margin of its surroundings, and neighbours are blended
where they overlap:

    out = Σ_n w_n ⊙ out_n / Σ_n w_n,    w_n from 0 to 1 over the middle half of an overlap

Noise belongs to the place on the whole image, so neighbours begin alike and there is nothing for a seam to show.
Finished blocks lie beside the output until all are there: after an interrupt the same command goes on.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from math import lcm
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffloom.checkpoint import sha256, write_json
from diffloom.conditioner import Batch
from diffloom.errors import DataError
from diffloom.stored import read_json
from diffloom.system import System, to_device
from diffloom_data.raster import Raster, Writer, enlarged_mask
from diffloom_stablesr import bands
from diffloom_stablesr.placed import Placed

OnBlock = Callable[[int, int], None]


@dataclass(frozen=True)
class Block:
    """A part of the image.

    Attributes:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
    """

    top: int
    left: int
    height: int
    width: int

    def with_margin(self, margin: int, size: tuple[int, int]) -> "Block":
        """Return the block and its surroundings, as far as the image goes."""
        top, left = max(self.top - margin, 0), max(self.left - margin, 0)
        bottom = min(self.top + self.height + margin, size[0])
        right = min(self.left + self.width + margin, size[1])
        return Block(top, left, bottom - top, right - left)


@dataclass(frozen=True)
class Job:
    """What is to be made.

    Attributes:
        source: The image.
        output: The file to write.
        scale: How many times larger it becomes.
        block: Side of a block, in pixels of the source.
        margin: Of its surroundings, in the same; at most a block.
        seed: Of the noise.
        model: Names the weights, so that blocks of other ones are not taken for theirs.
        key: Under which the system reads the small image.
        channels: How many bands the system sees; `None`: all that there are.
    """

    source: Raster
    output: Path
    scale: int
    block: int = 256
    margin: int = 16
    seed: int = 0
    model: str = ""
    key: str = "low_res"
    channels: int | None = None

    def blocks(self) -> list[Block]:
        """Return the blocks, row by row."""
        height, width = self.source.size
        return [
            Block(top, left, min(self.block, height - top), min(self.block, width - left))
            for top in range(0, height, self.block)
            for left in range(0, width, self.block)
        ]

    @property
    def parts(self) -> Path:
        """Where finished blocks lie."""
        return self.output.with_name(f".{self.output.name}.parts")


def unit(system: System, scale: int) -> int:
    """Return what blocks and margins are best multiples of, in pixels of the small image.

    Then latents, and the windows in which the denoiser sees them, fall on the same places in all blocks.
    """
    window = system.plan.window
    hop = 1 if window is None else max(window // 2, 1)
    return lcm(system.autoencoder.stride * hop, scale) // scale


def enlarge(system: System, job: Job, on_block: OnBlock | None = None) -> Path:
    """Write the enlarged image; nothing is at its place before it is whole.

    Args:
        system: Its task answers `image` for a small image under the job's key.
        job: What is to be made.
        on_block: Called with how many blocks are done, and how many there are.

    Returns:
        The file that was written.

    Raises:
        DataError: The system answers other bands than the image has.
    """
    blocks = job.blocks()
    _begin(job)
    for number, block in enumerate(blocks):
        file = _file(job, number)
        if not file.is_file():
            made = _made(system, job, block)
            beside = file.with_suffix(".new.npy")
            np.save(beside, made.numpy())
            beside.replace(file)
        if on_block is not None:
            on_block(number + 1, len(blocks))
    beside = job.output.with_name(f".{job.output.stem}.new{job.output.suffix}")
    with closing(Writer(beside, job.source, job.scale)) as writer:
        for number, block in enumerate(blocks):
            values = job.source.stored(_blended(job, blocks, number), _gaps(job, block))
            writer.write(values, block.top * job.scale, block.left * job.scale)
    beside.replace(job.output)
    shutil.rmtree(job.parts)
    return job.output


def _made(system: System, job: Job, block: Block) -> Tensor:
    """Return the answer for a block and its surroundings, (bands, scale · height, scale · width) in [−1, 1]."""
    wide = block.with_margin(job.margin, job.source.size)
    small = job.source.read(wide.top, wide.left, wide.height, wide.width)
    seen = [band for band in range(job.source.bands) if band not in job.source.opacity]
    grouped = bands.groups(seen, job.channels or len(seen))
    batch = to_device(_asked(system, job, len(grouped)) | {job.key: bands.cut(small, grouped)}, system.device)
    corner = (wide.top * job.scale // system.autoencoder.stride, wide.left * job.scale // system.autoencoder.stride)
    noise = Placed([job.seed] * len(grouped), scope=("sr",), corner=corner)
    with torch.inference_mode():
        answer: Tensor = system.task.predict(system, batch, noise)["image"].float().cpu()
    wanted = (len(grouped[0]), wide.height * job.scale, wide.width * job.scale)
    if tuple(answer.shape[1:]) != wanted:
        raise DataError(
            "the system does not answer this image as it should",
            where=str(job.source.path),
            expected=f"{wanted[0]} bands of {wanted[1]} × {wanted[2]} pixels",
            got=" × ".join(map(str, answer.shape[1:])),
            remedy="use a run that was trained on as many bands, by this factor",
        )
    made = bands.joined(answer, grouped, job.source.bands)
    for band in job.source.opacity:
        made[band] = functional.interpolate(small[band][None, None], made.shape[1:], mode="bicubic")[0, 0].clamp(-1, 1)
    return made


def _asked(system: System, job: Job, count: int) -> Batch:
    """Return what conditioners need beside the small image, of the first of the system's own data, `count` times."""
    needs = {key for part in system.conditioners.values() for key in part.needs} - {job.key}
    if not needs:
        return {}
    one = system.prompts(1)
    values = {key: one[key] for key in needs if key in one}
    return {
        key: value.expand(count, *value.shape[1:]) if isinstance(value, Tensor) else list(value) * count
        for key, value in values.items()
    }


def _blended(job: Job, blocks: list[Block], number: int) -> Tensor:
    """Return a block of the output, (bands, scale · height, scale · width), from its answer and its neighbours'."""
    core = blocks[number]
    total = torch.zeros(core.height * job.scale, core.width * job.scale)
    out = torch.zeros(job.source.bands, *total.shape)
    for other in _around(job, number, len(blocks)):
        wide = blocks[other].with_margin(job.margin, job.source.size)
        sides = [
            _shared(core.top, core.height, blocks[other].top, blocks[other].height, wide.top, wide.height, job.scale),
            _shared(core.left, core.width, blocks[other].left, blocks[other].width, wide.left, wide.width, job.scale),
        ]
        if any(here.start >= here.stop for here, _, _ in sides):
            continue
        (rows, their_rows, down), (columns, their_columns, across) = sides
        counts = down[:, None] * across
        answer = torch.from_numpy(np.load(_file(job, other), mmap_mode="r")[:, their_rows, their_columns].copy())
        out[:, rows, columns] += answer * counts
        total[rows, columns] += counts
    return out / total


def _around(job: Job, number: int, count: int) -> Iterator[int]:
    """Yield the numbers of a block and of those that touch it."""
    columns = -(-job.source.size[1] // job.block)
    row, column = divmod(number, columns)
    for r in range(max(row - 1, 0), min(row + 2, count // columns)):
        for c in range(max(column - 1, 0), min(column + 2, columns)):
            yield r * columns + c


def _shared(
    start: int, length: int, other: int, their_length: int, wide: int, wide_length: int, scale: int
) -> tuple[slice, slice, Tensor]:
    """Return along one side what a block and another's answer share, and how much the answer counts there.

    Args:
        start: Where the block begins.
        length: How long it is.
        other: Where the other block begins.
        their_length: How long it is.
        wide: Where that one's answer begins.
        wide_length: How long it is.
        scale: Pixels of the answer for one of these.
    """
    low, high = max(start, wide) * scale, min(start + length, wide + wide_length) * scale
    place = torch.arange(low, max(low, high)) + 0.5
    counts = torch.ones(len(place))
    before, after = other - wide, wide + wide_length - other - their_length
    if before:
        counts = counts * _rise(place, (other - before) * scale, (other + before) * scale)
    if after:
        end = other + their_length
        counts = counts * (1 - _rise(place, (end - after) * scale, (end + after) * scale))
    return slice(low - start * scale, high - start * scale), slice(low - wide * scale, high - wide * scale), counts


def _rise(place: Tensor, low: int, high: int) -> Tensor:
    """Return 0 in the first quarter of [low, high], 1 in the last, and a smooth rise between."""
    share = ((place - low) / (high - low) * 2 - 0.5).clamp(0, 1)
    return share.square() * (3 - 2 * share)


def _gaps(job: Job, block: Block) -> Tensor | None:
    missing = job.source.missing(block.top, block.left, block.height, block.width)
    return None if missing is None else enlarged_mask(missing, job.scale)


def _begin(job: Job) -> None:
    """Make the folder of finished blocks; blocks of another job are not taken for this one's."""
    told = {
        "source": sha256(job.source.path),
        "limits": list(job.source.limits),
        "scale": job.scale,
        "block": job.block,
        "margin": job.margin,
        "seed": job.seed,
        "model": job.model,
        "channels": job.channels,
    }
    file = job.parts / "job.json"
    if file.is_file() and read_json(file) == told:
        return
    shutil.rmtree(job.parts, ignore_errors=True)
    job.parts.mkdir(parents=True)
    write_json(file, told)


def _file(job: Job, number: int) -> Path:
    return job.parts / f"{number:06d}.npy"
