"""Enlarge: an image of any size, block by block, in bounded memory, resumable.

The image is cut into blocks. Each goes through the system with a margin of its surroundings, and the margin is cut off
the answer, so neighbouring blocks agree where they meet; blocks of one row and column share the seed that their place
gives. Finished blocks lie beside the output until all are there: after an interrupt the same command goes on.
"""

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from diffloom.checkpoint import sha256, write_json
from diffloom.conditioner import Batch
from diffloom.errors import DataError
from diffloom.noise import mix
from diffloom.stored import read_json
from diffloom.system import System
from diffloom_data.raster import Raster, Writer, enlarged_mask

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
        margin: Of its surroundings, in the same.
        seed: Of the noise.
        model: Names the weights, so that blocks of other ones are not taken for theirs.
        key: Under which the system reads the small image.
    """

    source: Raster
    output: Path
    scale: int
    block: int = 256
    margin: int = 16
    seed: int = 0
    model: str = ""
    key: str = "low_res"

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


def enlarge(system: System, job: Job, on_block: OnBlock | None = None) -> Path:
    """Write the enlarged image; nothing is at its place before it is whole.

    Args:
        system: Answers `image` for a small image under the job's key.
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
            np.save(beside, job.source.stored(made, _gaps(job, block)))
            beside.replace(file)
        if on_block is not None:
            on_block(number + 1, len(blocks))
    beside = job.output.with_name(f".{job.output.stem}.new{job.output.suffix}")
    with closing(Writer(beside, job.source, job.scale)) as writer:
        for number, block in enumerate(blocks):
            writer.write(np.load(_file(job, number)), block.top * job.scale, block.left * job.scale)
    beside.replace(job.output)
    shutil.rmtree(job.parts)
    return job.output


def _made(system: System, job: Job, block: Block) -> Tensor:
    """Return a block's answer, (bands, scale · height, scale · width) in [−1, 1]."""
    wide = block.with_margin(job.margin, job.source.size)
    small = job.source.read(wide.top, wide.left, wide.height, wide.width)[None]
    batch: Batch = {job.key: small}
    answer: Tensor = system.predict(batch, seeds=[mix("sr", job.seed, block.top, block.left)])["image"][0].cpu()
    wanted = (job.source.bands, wide.height * job.scale, wide.width * job.scale)
    if tuple(answer.shape) != wanted:
        raise DataError(
            "the system does not answer this image as it should",
            where=str(job.source.path),
            expected=f"{wanted[0]} bands of {wanted[1]} × {wanted[2]} pixels",
            got=" × ".join(map(str, answer.shape)),
            remedy="use a run that was trained on as many bands, by this factor",
        )
    top, left = (block.top - wide.top) * job.scale, (block.left - wide.left) * job.scale
    return answer[:, top : top + block.height * job.scale, left : left + block.width * job.scale]


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
    }
    file = job.parts / "job.json"
    if file.is_file() and read_json(file) == told:
        return
    shutil.rmtree(job.parts, ignore_errors=True)
    job.parts.mkdir(parents=True)
    write_json(file, told)


def _file(job: Job, number: int) -> Path:
    return job.parts / f"{number:06d}.npy"
