"""Trainer: the loop. Every step is a function of the seed, the step and the weights, and of nothing else.

So there is no generator state to save: data order, noise and drop-out are drawn anew from (seed, step), and a killed
run that goes on from its last checkpoint ends with the bits of an unbroken one, on the same machine.
"""

import atexit
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, distributed, nn

from diffloom.checkpoint import Checkpoint
from diffloom.conditioner import Batch
from diffloom.data import Dataset
from diffloom.engine import audit, optimise
from diffloom.engine.average import Average
from diffloom.engine.loader import Stream
from diffloom.errors import CheckpointError, IncompatibleParts
from diffloom.noise import Noise, mix
from diffloom.recipe.settings import TrainSettings
from diffloom.system import System, take, to_device
from diffloom.task import Objective

_MIXED = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}


def accelerator(precision: torch.dtype, device: str) -> Accelerator:
    """Return an accelerator; one of another precision that this process had before is put away first.

    Without a CUDA device it is told to take the CPU: only then does it join several processes through gloo. The group
    of processes is left when this one ends, before its threads are torn down under it.
    """
    mixed = _MIXED[precision]
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed:
        AcceleratorState._reset_state(True)
    made = Accelerator(mixed_precision=mixed, cpu=on_cpu, gradient_accumulation_steps=1)
    atexit.unregister(_leave)
    atexit.register(_leave)
    return made


def _leave() -> None:
    """Leave the group of processes, if this one is in any."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


class Trainer:
    """Trains a system step by step.

    Args:
        system: What is trained; moved to the accelerator's device, in channels-last layout.
        dataset: What it is trained on.
        settings: How.
        seed: Seeds data order, noise and drop-out.
        device: `auto`, or `cpu`.
    """

    def __init__(
        self, system: System, dataset: Dataset, settings: TrainSettings, *, seed: int, device: str = "auto"
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.step = 0
        self.accelerator = accelerator(system.plan.precision, device)
        self.system = system.to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dataset = dataset
        self.objectives = [_trainable(objective) for objective in system.task.objectives(system)]
        if not any(objective.parameters for objective in self.objectives):
            raise IncompatibleParts(
                "nothing is left to train: every parameter is frozen", where="task", remedy="unfreeze a component"
            )
        self.modules = [optimise.ObjectiveModule(objective) for objective in self.objectives]
        self.optimizers = [optimise.make(objective.parameters, settings) for objective in self.objectives]
        self.prepared = [
            self.accelerator.prepare(module, optimizer)
            for module, optimizer in zip(self.modules, self.optimizers, strict=True)
        ]
        self.average = Average(self._weights(), decay=settings.ema, warmup=settings.ema_warmup)
        self.found = audit.Audit()

    def steps(self) -> Iterator[dict[str, float] | None]:
        """Train from the present step to the last; yield each step's figures, `None` where none are logged."""
        stream = Stream(
            self.dataset,
            seed=self.seed,
            batch=self.settings.batch,
            start=self.step,
            stop=self.settings.steps,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            workers=self.settings.workers,
        )
        for batch in stream:
            self.system.train()
            record = self._step(to_device(batch, self.accelerator.device), stream.seeds(self.step))
            self.step += 1
            wanted = self.step % self.settings.log_every == 0 or self.step in (1, self.settings.steps)
            yield self._figures(record) if wanted else None

    def _step(self, batch: Batch, seeds: Sequence[int]) -> dict[str, Tensor]:
        torch.manual_seed(mix("dropout", self.seed, self.step, self.accelerator.process_index))
        self.system.task.step = self.step
        before = audit.fingerprint(self.system) if self.step == 0 else {}
        rate = optimise.rate(self.step, self.settings)
        record: dict[str, Tensor] = {}
        unreached: list[str] = []
        for objective, (module, optimizer) in zip(self.objectives, self.prepared, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            prefix = f"{objective.name}/" if len(self.objectives) > 1 else ""
            with self._alone(objective):
                terms = self._backward(module, batch, Noise(seeds, scope=(objective.name,)))
            if self.settings.clip is not None:
                parameters = list(objective.parameters.values())
                terms["gradient_norm"] = self.accelerator.clip_grad_norm_(parameters, self.settings.clip)
            if self.step == 0:
                unreached += audit.unreached(objective.parameters)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            record |= {prefix + name: value for name, value in terms.items()}
        self.average.update()
        if self.step == 0:
            self.found = audit.Audit(tuple(unreached), audit.moved(self.system, before))
        return record

    def _backward(self, module: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Accumulate the gradient over the parts of a batch; return the mean of the figures."""
        parts = list(_parts(len(noise), self.settings.accumulate))
        total: dict[str, Tensor] = {}
        for part in parts:
            share = (part.stop - part.start) / len(noise)
            with self.accelerator.no_sync(module) if part is not parts[-1] else _nothing():
                value, terms = module(take(batch, part), noise[part])
                self.accelerator.backward(value * share)
            for name, term in {"loss": value.detach(), **terms}.items():
                total[name] = total.get(name, 0) + term.detach() * share
        return total

    @contextmanager
    def _alone(self, objective: Objective) -> Iterator[None]:
        """Within the context only this objective's parameters ask for gradients: nothing leaks into the others."""
        if len(self.objectives) == 1:
            yield
            return
        others = [p for other in self.objectives if other is not objective for p in other.parameters.values()]
        mine = {id(p) for p in objective.parameters.values()}
        paused = [p for p in others if id(p) not in mine]
        for p in paused:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in paused:
                p.requires_grad_(True)

    def _figures(self, record: Mapping[str, Tensor]) -> dict[str, float]:
        names = sorted(record)
        values = torch.stack([record[name].float().reshape(()) for name in names])
        values = self.accelerator.reduce(values, reduction="mean")
        figures = dict(zip(names, values.tolist(), strict=True))
        return {"lr": optimise.rate(self.step - 1, self.settings), **figures}

    @torch.no_grad()
    def finish(self) -> None:
        """Let the task complete what was trained, on the averaged weights; every process sees the same data."""
        seed = mix("finish", self.seed)
        stream = Stream(self.dataset, seed=seed, batch=self.settings.batch, start=0, stop=sys.maxsize)
        device = self.accelerator.device
        batches = ((to_device(b, device), Noise(stream.seeds(step))) for step, b in enumerate(stream))
        self.system.eval()
        with self.average.applied():
            self.system.task.finish(self.system, batches)

    def check_conditions(self) -> tuple[str, ...]:
        """Return the conditioners that the averaged weights ignore, judged on one small batch of the data."""
        if not self.system.conditioners:
            return ()
        count = min(8, len(self.dataset))
        stream = Stream(self.dataset, seed=mix("audit", self.seed), batch=count, start=0, stop=1)
        batch = to_device(next(iter(stream)), self.accelerator.device)
        self.system.eval()
        with self.average.applied():
            return audit.ignored(self.system, batch, Noise(range(count)))

    # --- state -------------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, Tensor]:
        """All weights of the system by role: what a checkpoint holds. Parts that are frozen are left out."""
        weights: dict[str, Tensor] = {}
        for role, part in self.system.roles().items():
            if any(p.requires_grad for p in part.parameters()) or not any(True for _ in part.parameters()):
                weights.update({f"{role}:{name}": t for name, t in part.state_dict(keep_vars=True).items()})
        return weights

    def checkpoint(self) -> Checkpoint:
        """Return all that is needed to go on from here."""
        tensors: dict[str, Mapping[str, Tensor]] = {"weights": self._weights(), "average": self.average.copies}
        for objective, module, optimizer in zip(self.objectives, self.modules, self.optimizers, strict=True):
            tensors[f"optimizer-{objective.name}"] = optimise.state_of(optimizer, module.names)
        return Checkpoint(tensors, {"step": self.step, "updates": self.average.updates})

    @torch.no_grad()
    def restore(self, saved: Checkpoint) -> None:
        """Go back to a checkpoint; CheckpointError where it is one of another system, before anything is changed."""
        weights = self._weights()
        fit("checkpoint", weights, saved.tensors["weights"])
        for name, tensor in weights.items():
            tensor.copy_(saved.tensors["weights"][name])
        for objective, module, optimizer in zip(self.objectives, self.modules, self.optimizers, strict=True):
            optimise.restore(optimizer, module.names, saved.tensors[f"optimizer-{objective.name}"])
        self.average.load(saved.tensors["average"], saved.state["updates"])
        self.step = saved.state["step"]


def fit(where: str, live: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless both have the same names and shapes."""
    missing = sorted(live.keys() - saved.keys())
    extra = sorted(saved.keys() - live.keys())
    if missing or extra:
        name = (missing or extra)[0]
        raise CheckpointError(
            f"the weights are of another network: '{name}' is {'missing' if missing else 'left over'}",
            where=where,
            expected=f"{len(live)} tensors",
            got=f"{len(saved)} tensors, {len(missing)} missing and {len(extra)} left over",
        )
    for name, tensor in live.items():
        if tensor.shape != saved[name].shape:
            raise CheckpointError(
                f"'{name}' has another shape",
                where=where,
                expected=str(tuple(tensor.shape)),
                got=str(tuple(saved[name].shape)),
            )


def _trainable(objective: Objective) -> Objective:
    parameters = {name: p for name, p in objective.parameters.items() if p.requires_grad}
    return Objective(objective.name, parameters, objective.loss)


def _parts(count: int, parts: int) -> Iterator[slice]:
    size = -(-count // parts)
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))


@contextmanager
def _nothing() -> Iterator[None]:
    yield
