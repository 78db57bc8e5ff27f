"""Check: build the system on the meta device and push one fake batch through everything, in seconds and without memory.

What is found: parts that refuse their values, contradictions between parts, ports that nobody fills or nobody reads,
shapes that do not fit; by name, with reason and remedy, all of them at once where they are independent.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from diffloom.blame import blamed
from diffloom.conditioner import Batch
from diffloom.data import collate
from diffloom.errors import DiffloomError, IncompatibleParts, RecipeError
from diffloom.guidance import branch_weights
from diffloom.noise import Noise
from diffloom.recipe.build import Built, build
from diffloom.recipe.contradictions import contradictions
from diffloom.recipe.recipe import Recipe
from diffloom.sampler import State
from diffloom.system import System, take, to_device
from diffloom.task import Loss
from diffloom_registry import Problem

_WEIGHTS_IN_TRAINING = 5  # weight, gradient, two moments, average
_META = torch.device("meta")


@dataclass(frozen=True)
class Report:
    """What a check found out about a system that fits together.

    Attributes:
        parameters: Role → number of parameters.
        trainable: How many of them are trained.
        forward_flops: Floating-point operations of one evaluation of the denoiser, for one item, without guidance.
        sample_flops: The same for a whole sampling of one item, guidance included.
        train_memory: Estimated bytes of a training step: weights, gradients, moments, average and activations.
        samples: Length of the data set.
        evaluations: How often sampling asks the network.
    """

    parameters: dict[str, int]
    trainable: int
    forward_flops: int
    sample_flops: int
    train_memory: int
    samples: int
    evaluations: int

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)


def check(recipe: Recipe) -> Report:
    """Return the figures of a recipe's system; RecipeError or IncompatibleParts where it does not fit together."""
    built = build(recipe, meta=True)
    problems = list(contradictions(recipe, built.system, built.dataset))
    if problems:
        raise recipe.error(problems)
    trained = recipe.header.train.steps > 0
    with _named(recipe):
        batch = _fake(built, recipe.header.train.batch)
        activations = _train_once(built.system, batch) if trained else 0
        forward, evaluations = _sample_once(built.system, take(batch, slice(0, 1)))
    parameters = {role: sum(p.numel() for p in part.parameters()) for role, part in built.system.roles().items()}
    trainable = sum(p.numel() for p in built.system.parameters() if p.requires_grad and trained)
    branches = len([w for w in branch_weights(list(built.system.guidance().values())) if w != 0])
    return Report(
        parameters={role: count for role, count in parameters.items() if count},
        trainable=trainable,
        forward_flops=forward,
        sample_flops=forward * evaluations * branches,
        train_memory=4 * (_WEIGHTS_IN_TRAINING * trainable + sum(parameters.values()) - trainable) + activations,
        samples=len(built.dataset),
        evaluations=evaluations,
    )


def _fake(built: Built, count: int) -> Batch:
    """Return a batch with the shapes of real samples and no memory."""
    sample = built.dataset.get(0)
    left = [key for key in built.dataset.holds if key not in sample]
    if left:
        raise IncompatibleParts(
            f"a sample lacks {', '.join(map(repr, left))}, which its data set or a transform declares",
            where="data",
            expected=", ".join(built.dataset.holds),
            got=", ".join(sample),
            remedy="correct its `keys`, the transform's `adds`, or what is read",
        )
    batch = collate([sample] * count)
    return to_device({k: v.to(_META) if isinstance(v, Tensor) else v for k, v in batch.items()}, _META)


def _train_once(system: System, batch: Batch) -> int:
    """Push a batch through every objective; return the bytes that its backward pass keeps."""
    kept: dict[int, int] = {}
    parameters = {id(p) for p in system.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in parameters:
            kept[id(tensor)] = tensor.numel() * tensor.element_size()
        return tensor

    noise = Noise(range(len(next(iter(batch.values())))))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        for objective in system.task.objectives(system):
            _require_kind(objective.parameters, Mapping, f"parameters of the objective '{objective.name}'")
            loss = objective.loss(batch, noise)
            _require_kind(loss, Loss, f"loss of the objective '{objective.name}'")
            if loss.value.dim():
                raise IncompatibleParts(
                    f"the objective '{objective.name}' gives a loss that is no single number",
                    where="task",
                    got=str(tuple(loss.value.shape)),
                )
    return sum(kept.values())


def _require_kind(value: object, kind: type, what: str) -> None:
    """Raise IncompatibleParts unless what a task gives is of the kind that its interface says."""
    if not isinstance(value, kind):
        raise IncompatibleParts(
            f"wrong {what}",
            where="task",
            expected=f"a {kind.__name__}",
            got=type(value).__name__,
        )


def _sample_once(system: System, batch: Batch) -> tuple[int, int]:
    """Take one sampler step for one item; return (operations of one evaluation, evaluations of a whole walk)."""
    if system._denoiser is None or system._sampler is None:
        return 0, 0
    noise = Noise([0])
    calls = 0
    model = system.model(batch)

    def counted(x_t: Tensor, t: Tensor) -> Any:
        nonlocal calls
        calls += 1
        return model(x_t, t)

    grid = system.sampler.grid(system.schedule)
    x = torch.empty(1, *system.space.shape, device=_META)
    with torch.no_grad():
        system.sampler.step(counted, system.schedule, grid, State(x, 0), noise)
        with FlopCounterMode(display=False) as counter:
            system.output(x, torch.zeros((), device=_META), system.codes(batch))
    return counter.get_total_flops(), calls * len(grid.t)


@contextmanager
def _named(recipe: Recipe) -> Iterator[None]:
    """Within the context an error gets its place in the recipe, or names the component in whose code it happened."""
    try:
        yield
    except RecipeError:
        raise
    except DiffloomError as error:
        path = tuple((error.where or "").split("."))
        if recipe.source.mark(path) is None or path[0] not in recipe.source.data:
            raise
        problem = Problem(path, error.message, error.expected, error.got, error.remedy)
        raise recipe.error([problem]) from error
    except Exception as error:
        raise IncompatibleParts(
            f"a fake batch does not pass: {(str(error).splitlines() or [type(error).__name__])[0]}",
            where=blamed(error) or "task",
            remedy="compare the shapes that it is given with its parameters; `diffloom verify` tests it alone",
        ) from error
