"""Weights: what `weights:` and `freeze:` do to a part when it is built."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from diffloom import checkpoint
from diffloom.errors import CheckpointError
from diffloom.recipe.settings import ModuleSettings

_RUN = "run:"


class Weights:
    """Loads and freezes parts.

    Args:
        runs: The folder in which `run:NAME` finds NAME.
        pretend: Compare names and shapes with the file's header, and read nothing.
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
        if settings.weights is not None:
            self._load(part, settings.weights, role, path)
        if settings.freeze:
            part.requires_grad_(False)

    def _load(self, part: nn.Module, name: str, role: str | None, path: str) -> None:
        file, prefix = self._file(name, role, path)
        wanted = {key: tuple(value.shape) for key, value in part.state_dict().items()}
        found = {
            key.removeprefix(prefix): shape for key, shape in checkpoint.shapes(file).items() if key.startswith(prefix)
        }
        _compare(wanted, found, f"{path}.weights ({file})")
        self.hashes[path] = checkpoint.sha256(file)
        if not self.pretend:
            tensors = checkpoint.load_tensors(file)
            part.load_state_dict({key: tensors[prefix + key] for key in wanted})

    def _file(self, name: str, role: str | None, path: str) -> tuple[Path, str]:
        if not name.startswith(_RUN):
            return Path(name).expanduser(), ""
        if role is None:
            raise CheckpointError("a nested part has no weights of its own in a run", where=f"{path}.weights", got=name)
        folder = self.runs / name.removeprefix(_RUN)
        newest = checkpoint.latest(folder / "checkpoints")
        if newest is None:
            raise CheckpointError(
                f"there is no finished checkpoint of the run '{folder.name}'",
                where=f"{path}.weights",
                expected=f"a checkpoint below {folder / 'checkpoints'}",
                remedy="train that recipe first, or start this one from the folder that holds its runs",
            )
        return newest / "average.safetensors", f"{role}:"


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
