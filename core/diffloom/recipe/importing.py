"""Import: other libraries' weights for the parts of a recipe, verified key by key, written in our own layout.

Nothing is written before every part that has weights in the sources is known to fit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from diffloom import checkpoint
from diffloom.errors import CheckpointError, RecipeError
from diffloom.layout import Layout
from diffloom.recipe.build import build
from diffloom.recipe.recipe import Recipe
from diffloom.recipe.weights import fit, nearest
from diffloom.stored import PICKLES, PIPELINE, Stored, stored
from diffloom.unpickled import unpickled

OVERLAY = "weights.yaml"
_NET, _AVERAGE = "model.diffusion_model.", "model_ema."
_OF_SIZE = ("sample_size",)


@dataclass(frozen=True)
class Found:
    """Weights in a source, in memory or on disk.

    Attributes:
        path: Where they are.
        shapes: Tensor's key → its shape.
        held: The tensors, where the source is a pickle; else they are read when they are needed.
        disk: Where they are read from.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    held: Mapping[str, Tensor] | None = None
    disk: Stored | None = None

    def read(self) -> Mapping[str, Tensor]:
        """Return the tensors."""
        return self.disk.read() if self.disk is not None else self.held or {}

    def config(self) -> Mapping[str, Any]:
        """Return what config.json beside them says."""
        return self.disk.config() if self.disk is not None else {}


@dataclass(frozen=True)
class Imported:
    """One part's weights.

    Attributes:
        role: The part.
        source: Where they were.
        layout: Whose layout they were in.
        file: Where they are now.
        tensors: How many there are.
        parameters: How many numbers they hold.
        left: Keys of the source that are not this part's.
        doubts: What the source's configuration says otherwise than the recipe's.
    """

    role: str
    source: Path
    layout: str
    file: Path
    tensors: int
    parameters: int
    left: int
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What an import did.

    Attributes:
        imported: By part, in the recipe's order.
        absent: Parts of the recipe for which the sources have nothing.
        unused: Sources that no part of the recipe took.
        overlay: A recipe that names the files, to be laid over the one they were made for.
    """

    imported: tuple[Imported, ...]
    absent: tuple[str, ...]
    unused: tuple[Path, ...]
    overlay: Path


def import_weights(sources: Sequence[Path], recipe: Recipe, folder: Path, *, average: bool = False) -> Result:
    """Write the weights that a recipe's parts have in other libraries' files.

    Args:
        sources: Files (safetensors, or pickles of which tensors alone are read) and folders.
        recipe: Whose parts; it is built without memory.
        folder: Where `ROLE.safetensors` and the overlay are written.
        average: Of a single-file checkpoint with averaged (EMA) copies, take these.

    Raises:
        CheckpointError: Where a part's weights are there and do not fit, with every reason; or none are there.
        RecipeError: Where the recipe is wrong.
    """
    found = [each for source in sources for each in _open(source.expanduser())]
    roles = {role: part for role, part in build(recipe, meta=True).system.roles().items() if part.state_dict()}
    matched: dict[str, tuple[Found, Layout | None]] = {}
    problems: list[str] = []
    for role, part in roles.items():
        try:
            match = _match(role, part, found)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if match is not None:
            matched[role] = match
    if problems:
        raise RecipeError.of(problems)
    if not matched:
        raise CheckpointError(
            "none of these weights belong to a part of the recipe",
            where=", ".join(map(str, sources)),
            expected=f"weights of {', '.join(roles)}" if roles else "a recipe whose parts have weights",
            got=", ".join(f"{each.path.name} ({next(iter(each.shapes), 'empty')}, …)" for each in found),
        )
    folder.mkdir(parents=True, exist_ok=True)
    imported = tuple(_convert(role, roles[role], *match, folder, average) for role, match in matched.items())
    taken = {id(source) for source, _ in matched.values()}
    absent = tuple(role for role in roles if role not in matched)
    unused = tuple(each.path for each in found if id(each) not in taken)
    return Result(imported, absent, unused, _overlay(imported, folder))


def convert(source: Path, folder: Path) -> tuple[Path, int]:
    """Write the tensors of an old pickle as safetensors, under the same keys.

    Returns:
        The file, and how many tensors it holds.
    """
    tensors = unpickled(source.expanduser())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{source.stem}.safetensors"
    checkpoint.save_tensors(tensors, file)
    return file, len(tensors)


def _open(path: Path) -> Iterator[Found]:
    """Yield the weights in a file, a model's folder or a pipeline's folders."""
    if path.suffix in PICKLES and path.is_file():
        tensors = unpickled(path)
        yield Found(path, {key: tuple(value.shape) for key, value in tensors.items()}, held=tensors)
    elif path.is_dir() and ((path / PIPELINE).is_file() or not any(path.glob("*.safetensors"))):
        inside = [child for child in sorted(path.iterdir()) if child.is_dir() and any(child.glob("*.safetensors"))]
        pickles = [] if inside else [file for file in sorted(path.rglob("*")) if file.suffix in PICKLES]
        if not inside and not pickles:
            raise CheckpointError("there are no weights in this folder", where=str(path))
        for child in (*inside, *pickles):
            yield from _open(child)
    else:
        disk = stored(path)
        yield Found(path, disk.shapes, disk=disk)


def _match(role: str, part: nn.Module, found: Sequence[Found]) -> tuple[Found, Layout | None] | None:
    """Return the weights of a part and their layout (none: our own); nothing where no source has a share of them."""
    wanted = part.state_dict().keys()
    refused = None
    for each in found:
        own = wanted == each.shapes.keys()
        layout = None if own else nearest(part, each.shapes)
        if not own and layout is None:
            continue
        try:
            fit(part, each.shapes, f"{role} ({each.path})")
        except CheckpointError as error:
            refused = refused or error
            continue
        return each, layout
    if refused is not None:
        raise refused
    return None


def _convert(role: str, part: nn.Module, source: Found, layout: Layout | None, folder: Path, average: bool) -> Imported:
    tensors = source.read()
    if average:
        tensors = _averaged(tensors, source.path)
    state = dict(tensors) if layout is None else layout.read(tensors)
    file = folder / f"{role}.safetensors"
    checkpoint.save_tensors(state, file)
    return Imported(
        role=role,
        source=source.path,
        layout="diffloom" if layout is None else layout.name,
        file=file,
        tensors=len(state),
        parameters=sum(tensor.numel() for tensor in state.values()),
        left=0 if layout is None else len(source.shapes) - layout.compare(source.shapes).shared,
        doubts=() if layout is None else tuple(_doubts(layout.config, source.config())),
    )


def _averaged(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return tensors with the network's replaced by their averages, whose keys have lost their dots."""
    copies = {key: _AVERAGE + key.removeprefix("model.").replace(".", "") for key in tensors if key.startswith(_NET)}
    missing = [copy for copy in copies.values() if copy not in tensors]
    if missing or not copies:
        raise CheckpointError(
            "this file has no averaged (EMA) weights of its network",
            where=str(path),
            expected=f"keys that begin with {_AVERAGE}",
            remedy="leave --average out",
        )
    return {key: tensors[copies.get(key, key)] for key in tensors}


def _doubts(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """Yield what two configurations say differently where both say something."""
    for key, value in ours.items():
        if key in theirs and not key.startswith("_") and key not in _OF_SIZE and not _same(value, theirs[key]):
            yield f"{key} is {theirs[key]} there and {value} in the recipe"


def _same(one: object, other: object) -> bool:
    """Tell whether two values agree; one value stands for a list of it."""
    if isinstance(one, list | tuple) or isinstance(other, list | tuple):
        count = max(len(side) for side in (one, other) if isinstance(side, list | tuple))
        sides = [list(side) if isinstance(side, list | tuple) else [side] * count for side in (one, other)]
        return sides[0] == sides[1]
    return one == other


def _overlay(imported: Sequence[Imported], folder: Path) -> Path:
    """Write the recipe that names the files of weights."""
    lines = ["# Lay this over the recipe: diffloom run RECIPE " + str(folder / OVERLAY), "diffloom: 1"]
    nested: dict[str, Path] = {}
    for each in imported:
        if each.role.startswith("conditioners."):
            nested[each.role.removeprefix("conditioners.")] = each.file
        else:
            lines.append(f'{each.role}: {{weights: "{each.file.resolve()}"}}')
    if nested:
        lines.append("conditioners:")
        lines += [f'  {name}: {{weights: "{file.resolve()}"}}' for name, file in nested.items()]
    file = folder / OVERLAY
    checkpoint.write_text(file, "\n".join(lines) + "\n")
    return file
