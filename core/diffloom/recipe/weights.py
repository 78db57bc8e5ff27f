"""Weights: what `weights:` and `freeze:` do to a part when it is built."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from diffloom import checkpoint
from diffloom.errors import CheckpointError
from diffloom.layout import Layout, layouts_of
from diffloom.paths import expand
from diffloom.recipe.settings import ModuleSettings
from diffloom.stored import digest, stored

Tensors = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]

_RUN = "run:"
_HALF = 0.5


class Weights:
    """Loads and freezes parts.

    Args:
        runs: The folder in which `run:NAME` finds NAME.
        pretend: Compare names and shapes with the file's header, and read no more of it.
    """

    def __init__(self, runs: Path, *, pretend: bool) -> None:
        self.runs = runs
        self.pretend = pretend
        self.hashes: dict[str, str] = {}

    def apply(self, part: nn.Module, settings: ModuleSettings, role: str | None, path: str) -> None:
        """Give a part the weights that its recipe names, and freeze it where it says so.

        Args:
            part: The built part.
            settings: Its `weights` and `freeze`.
            role: The name under which runs save it; `None` for a nested part.
            path: Where it stands in the recipe.

        Raises:
            CheckpointError: Where the file is missing, damaged, or of another network.
        """
        files = getattr(part, "weight_files", ())
        if settings.weights is not None:
            self._load(part, settings.weights, role, path)
        elif files and not self.pretend:
            self.hashes[path] = digest(files)
        if settings.freeze:
            part.requires_grad_(False)

    def _load(self, part: nn.Module, name: str, role: str | None, path: str) -> None:
        file, prefix = self._file(name, role, path)
        where = f"{path}.weights ({file})"
        source = stored(file)
        fitted = fit(part, source.shapes, where, prefix)
        if not self.pretend:
            self.hashes[path] = source.sha256()
            part.load_state_dict(fitted(source.read()))

    def _file(self, name: str, role: str | None, path: str) -> tuple[Path, str]:
        if not name.startswith(_RUN):
            return expand(name, where=f"{path}.weights"), ""
        run, _, other = name.removeprefix(_RUN).partition(":")
        role = other or role
        if role is None:
            raise CheckpointError(
                "a nested part has no weights of its own in a run",
                where=f"{path}.weights",
                got=name,
                remedy=f"say whose to take: {name}:ROLE, such as {name}:autoencoder",
            )
        folder = self.runs / run
        newest = checkpoint.latest(folder / "checkpoints")
        if newest is None:
            raise CheckpointError(
                f"there is no finished checkpoint of the run '{folder.name}'",
                where=f"{path}.weights",
                expected=f"a checkpoint below {folder / 'checkpoints'}",
                remedy="train that recipe first, or start this one from the folder that holds its runs",
            )
        return newest / "average.safetensors", f"{role}:"


def fit(part: nn.Module, shapes: Shapes, where: str, prefix: str = "") -> Callable[[Mapping[str, Tensor]], Tensors]:
    """Return what turns a file's tensors into a part's state; names and shapes are compared with its header alone.

    Args:
        part: What the weights are for; it may be on the meta device.
        shapes: Shapes of the file's tensors, by key.
        where: What an error is about.
        prefix: Before the part's own keys in the file.

    Raises:
        CheckpointError: Where they are neither in our own layout nor in one that the part knows.
    """
    wanted = {key: tuple(value.shape) for key, value in part.state_dict().items()}
    own = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    layout = None if own.keys() == wanted.keys() else nearest(part, shapes)
    if layout is None:
        _compare(wanted, own, where)
        return lambda tensors: {key: tensors[prefix + key] for key in wanted}
    ghosts = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    try:
        found = {key: tuple(tensor.shape) for key, tensor in layout.read(ghosts).items()}
    except CheckpointError as error:
        error.where = where
        raise
    _compare(wanted, found, f"{where}, in the layout of {layout.name}")
    return layout.read


def nearest(part: nn.Module, shapes: Shapes) -> Layout | None:
    """Return the foreign layout of a part that shares most keys with a file; nothing where none shares half."""
    shares = []
    for layout in layouts_of(part):
        difference = layout.compare(shapes)
        shares.append((difference.shared / (difference.shared + len(difference.missing)), layout))
    share, best = max(shares, key=lambda pair: pair[0], default=(0.0, None))
    return best if share > _HALF else None


def _compare(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str) -> None:
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or extra:
        parts = [
            f"{len(names)} {what} (such as '{names[0]}')"
            for names, what in ((missing, "missing"), (extra, "left over"))
            if names
        ]
        raise CheckpointError(
            "the file holds the weights of another network",
            where=where,
            expected=f"{len(wanted)} tensors",
            got=" and ".join(parts),
        )
    wrong = [key for key, shape in wanted.items() if found[key] != shape]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} tensors have another shape, such as '{wrong[0]}'",
            where=where,
            expected=str(wanted[wrong[0]]),
            got=str(found[wrong[0]]),
            remedy="give the component the parameters that the weights were trained with",
        )
