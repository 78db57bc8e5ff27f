"""System: the built parts of a recipe, joined. It is what trains, samples and answers.

Everything a task needs is here: encode images into latents, encode what conditions say, ask the denoiser with or
without guidance, and walk a sampler. Pixels or latents, any number of conditioners: the same code.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from diffloom.autoencoder import Autoencoder
from diffloom.condition import Condition, choose
from diffloom.conditioner import Batch, Code, Conditioner
from diffloom.conditioner import Conditioning as Conditioning  # a part of a system's plan
from diffloom.denoiser import Denoiser
from diffloom.errors import DataError, IncompatibleParts
from diffloom.grid import Span
from diffloom.guided import Guided
from diffloom.noise import Noise
from diffloom.prediction import Prediction
from diffloom.sampler import Model, OnStep, Sampler
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.task import Task

if TYPE_CHECKING:
    from diffloom.data import Dataset

Part = TypeVar("Part")


@dataclass(frozen=True)
class Plan:
    """What a system is besides its parts.

    Attributes:
        data_space: The space of the images.
        prediction: What the denoiser's output means.
        conditioning: How each conditioner takes part, by name.
        precision: Number type of the network's arithmetic; states stay float32.
        prompts: Makes a batch of `count` things to ask for, where `sample` is given none.
        sample_batch: How many items `sample` computes at a time.
        window: Side of the windows in which the denoiser sees larger maps; `None`: it sees them as a whole.
    """

    data_space: Space
    prediction: Prediction = "eps"
    conditioning: Mapping[str, Conditioning] = field(default_factory=dict)
    precision: torch.dtype = torch.float32
    prompts: Callable[[int], Batch] | None = None
    sample_batch: int = 64
    window: int | None = None


class System(nn.Module):
    """The parts of a recipe, built and joined.

    Args:
        plan: What is not a part.
        schedule: The Gaussian path, where the task diffuses.
        denoiser: The network, where the task diffuses.
        sampler: The default sampler, where the task diffuses.
        autoencoder: Between images and what is diffused.
        conditioners: By name, in the recipe's order.
        task: What the system is for.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        autoencoder: Autoencoder,
        task: Task,
        schedule: Schedule | None = None,
        denoiser: Denoiser | None = None,
        sampler: Sampler | None = None,
        conditioners: Mapping[str, Conditioner] | None = None,
    ) -> None:
        super().__init__()
        self.plan = plan
        self._schedule = schedule
        self._sampler = sampler
        self._denoiser = denoiser
        self._observer: OnStep | None = None
        self.autoencoder = autoencoder
        self.conditioning = nn.ModuleDict(dict(conditioners or {}))
        self.task = task

    # --- parts -------------------------------------------------------------------------------------------------

    @property
    def schedule(self) -> Schedule:
        """The Gaussian path; IncompatibleParts where the recipe names none."""
        return self._part("schedule", self._schedule)

    @property
    def sampler(self) -> Sampler:
        """The recipe's sampler; IncompatibleParts where the recipe names none."""
        return self._part("sampler", self._sampler)

    @property
    def denoiser(self) -> Denoiser:
        """The network; IncompatibleParts where the recipe names none."""
        return self._part("denoiser", self._denoiser)

    @property
    def conditioners(self) -> dict[str, Conditioner]:
        """The conditioners by name, in the recipe's order."""
        return {name: cast(Conditioner, module) for name, module in self.conditioning.items()}

    @property
    def space(self) -> Space:
        """The space of what is diffused: the images', or the autoencoder's latents."""
        return latent_space(self.autoencoder, self.plan.data_space)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def train(self, mode: bool = True) -> Self:
        """Set the mode. Parts that are frozen stay in evaluation mode: nothing is dropped, no statistics move."""
        super().train(mode)
        for part in self.roles().values():
            parameters = list(part.parameters())
            if mode and parameters and not any(p.requires_grad for p in parameters):
                part.eval()
        return self

    def roles(self) -> dict[str, nn.Module]:
        """Return the parts that have weights, by the name under which they are saved."""
        roles: dict[str, nn.Module] = {}
        if self._denoiser is not None:
            roles["denoiser"] = self._denoiser
        roles["autoencoder"] = self.autoencoder
        roles.update({f"conditioners.{name}": part for name, part in self.conditioners.items()})
        roles["task"] = self.task
        return roles

    # --- what tasks ask ----------------------------------------------------------------------------------------

    def encode(self, images: Tensor, noise: Noise) -> Tensor:
        """Return a draw from the posterior over latents of images (B, C, H, W) in [−1, 1]."""
        return self.autoencoder.encode(images).sample(noise)

    def codes(self, batch: Batch, noise: Noise | None = None) -> dict[str, Code]:
        """Return every conditioner's code for a batch; DataError where the batch lacks what one needs.

        Args:
            batch: What the conditioners read.
            noise: Draws what a conditioner leaves to chance; without it nothing is.
        """
        codes = {}
        for name, conditioner in self.conditioners.items():
            missing = [key for key in conditioner.needs if key not in batch]
            if missing:
                raise DataError(
                    f"the batch has no '{missing[0]}'",
                    where=f"conditioners.{name}",
                    expected=f"keys {', '.join(conditioner.needs)}",
                    got=f"keys {', '.join(sorted(batch)) or 'none'}",
                    remedy=f"use a data set whose samples have '{missing[0]}', or give it with the batch",
                )
            code = conditioner.encode(batch)
            codes[name] = code if noise is None else conditioner.vary(code, noise.within("vary", name))
        return codes

    def drop(self, codes: Mapping[str, Code], noise: Noise) -> dict[str, Code]:
        """Return the codes as training shows them: partly hidden, or replaced by their null, at random per sample.

        What is hidden of a code is its conditioner's choice (`Conditioner.hide`); with the drop probability of the
        recipe it is the whole.
        """
        dropped = {}
        for name, kept in codes.items():
            code = self.conditioners[name].hide(kept, noise.within("hide", name))
            rate = self._conditioning(name).drop
            if rate:
                keep = noise.uniform(torch.empty(len(noise)), "drop", name) >= rate
                code = choose(keep, code, self.conditioners[name].null(code))
            dropped[name] = code
        return dropped

    def condition(self, codes: Mapping[str, Code], x_t: Tensor, t: Tensor) -> Condition:
        """Return what the denoiser is told at time t: all conditioners, in order, each seeing those before it."""
        given = Condition()
        for name, conditioner in self.conditioners.items():
            given = given | conditioner(codes[name], x_t, t, given)
        return given

    def output(self, x_t: Tensor, t: Tensor, codes: Mapping[str, Code]) -> Tensor:
        """Return the denoiser's raw output (B, out_channels, *spatial), float32 at least, without guidance."""
        return self.answer(x_t, t, partial(self.condition, codes))

    def answer(self, x_t: Tensor, t: Tensor, tell: Callable[[Tensor, Tensor], Condition]) -> Tensor:
        """Return the denoiser's raw output, as `output` does, where it is told what `tell(x_t, t)` says."""
        t = t.to(x_t.device, non_blocking=True)
        with self.autocast(x_t.device, x_t.dtype):
            output = self.denoiser(x_t, t, tell(x_t, t))
        return cast(Tensor, output).to(x_t.dtype)

    def features(self, x_t: Tensor, t: Tensor, codes: Mapping[str, Code], read: Sequence[str]) -> dict[str, Tensor]:
        """Return the feature maps of the denoiser's taps `read`, in the type of x_t, without guidance."""
        t = t.to(x_t.device, non_blocking=True)
        with self.autocast(x_t.device, x_t.dtype):
            _, maps = self.denoiser(x_t, t, self.condition(codes, x_t, t), read=read)
        return {name: maps[name].to(x_t.dtype) for name in read}

    def model(self, batch: Batch, noise: Noise | None = None) -> Model:
        """Return `model(x_t, t) -> Denoised` for the items of a batch, with every guidance scale folded in."""
        return Guided(self, self.codes(batch, noise))

    def walk(
        self,
        batch: Batch,
        noise: Noise,
        *,
        x0: Tensor | None = None,
        strength: float = 1.0,
        codes: Mapping[str, Code] | None = None,
    ) -> Tensor:
        """Return clean latents that the sampler finds for a batch, (B, *space.shape) or in the shape of x0.

        Args:
            batch: What the conditioners read.
            noise: One stream per item.
            x0: Clean latents (B, c, H, W) of any size to begin from; by default noise alone.
            strength: With x0, which part of the steps to make, in [0, 1].
            codes: What the conditioners made of the batch, where that is known.
        """
        shape = self.space.shape if x0 is None else x0.shape[1:]
        z = noise.normal(torch.empty(len(noise), *shape, device=self.device), "start")
        start = self.sampler.start(self.schedule, z, x0, strength)
        model = self.model(batch, noise) if codes is None else Guided(self, codes)
        return self.sampler.sample(model, self.schedule, start, noise.within("walk"), on_step=self._observer)

    @contextmanager
    def observed(self, observer: OnStep) -> Iterator[None]:
        """Within the context `observer(state)` is called after every step of every walk."""
        self._observer = observer
        try:
            yield
        finally:
            self._observer = None

    @contextmanager
    def sampled_by(self, sampler: Sampler) -> Iterator[None]:
        """Within the context the system samples with another sampler, on the same weights."""
        kept, self._sampler = self._sampler, sampler
        try:
            yield
        finally:
            self._sampler = kept

    # --- what users ask ----------------------------------------------------------------------------------------

    @torch.inference_mode()
    def predict(self, batch: Batch, *, seeds: Iterable[int]) -> dict[str, Tensor]:
        """Return the task's answers for a batch.

        Args:
            batch: As the data set gives it; tensors may be on any device.
            seeds: One per item.
        """
        moved = to_device(batch, self.device)
        return self.task.predict(self, moved, Noise(seeds, scope=("predict",)))

    def sample(
        self,
        count: int | None = None,
        *,
        seeds: Iterable[int] | None = None,
        batch: Batch | None = None,
    ) -> Tensor:
        """Return images (count, C, H, W) in [−1, 1].

        Args:
            count: How many; the number of seeds by default.
            seeds: One per image; 0 … count − 1 by default. An image depends on its seed and what it is asked for.
            batch: What to ask for, `count` of each; by default the classes in turn, or samples of the data set.
        """
        numbers = list(range(count or 0)) if seeds is None else [int(seed) for seed in seeds]
        if count is not None and len(numbers) != count:
            raise ValueError(f"{count} images were asked for with {len(numbers)} seeds")
        asked = self.prompts(len(numbers)) if batch is None else batch
        return torch.cat([answer["image"] for answer in self.stream(asked, numbers)])

    def stream(self, batch: Batch, seeds: list[int]) -> Iterator[dict[str, Tensor]]:
        """Yield the task's answers for a large batch, `plan.sample_batch` items at a time."""
        for start in range(0, len(seeds), self.plan.sample_batch):
            part = slice(start, start + self.plan.sample_batch)
            yield self.predict(take(batch, part), seeds=seeds[part])

    def prompts(self, count: int) -> Batch:
        """Return a batch of `count` things to ask for."""
        if self.plan.prompts is not None:
            return self.plan.prompts(count)
        needs = sorted({key for c in self.conditioners.values() for key in c.needs})
        if needs:
            raise DataError(
                f"nothing says what to sample: the conditioners need {', '.join(needs)}",
                remedy=f"pass batch={{'{needs[0]}': …}}",
            )
        return {"item": torch.arange(count)}

    # --- inside ------------------------------------------------------------------------------------------------

    def _conditioning(self, name: str) -> Conditioning:
        return self.plan.conditioning.get(name, Conditioning())

    def guidance(self) -> dict[str, float]:
        """Return the guidance scale of every guided conditioner."""
        scales = {name: self._conditioning(name).guidance for name in self.conditioners}
        return {name: scale for name, scale in scales.items() if scale is not None}

    def spans(self) -> dict[str, Span]:
        """Return from when to when in a walk they are told, for the conditioners that are not told throughout."""
        told = {name: self._conditioning(name) for name in self.conditioners}
        parts = {name: (how.start, how.end) for name, how in told.items() if (how.start, how.end) != (0.0, 1.0)}
        return {name: self.sampler.grid(self.schedule).span(*part) for name, part in parts.items()}

    def autocast(self, device: torch.device, dtype: torch.dtype = torch.float32) -> AbstractContextManager[object]:
        """Return the context in which the network computes with the plan's precision, for states of a type."""
        if self.plan.precision == torch.float32 or device.type == "meta" or dtype == torch.float64:
            return nullcontext()
        return torch.autocast(device.type, self.plan.precision)

    def _part(self, role: str, part: Part | None) -> Part:
        if part is None:
            raise IncompatibleParts(
                f"the task asks for a {role}, and the recipe names none",
                where=role,
                remedy=f"add `{role}: {{type: …}}`; `diffloom list {role}` shows what is installed",
            )
        return part


def latent_space(autoencoder: Autoencoder, data: Space) -> Space:
    """Return the space of an autoencoder's latents for images of a space."""
    if autoencoder.bounded:
        return data
    uneven = [side for side in data.size if side % autoencoder.stride]
    if uneven:
        raise IncompatibleParts(
            f"images of size {'×'.join(map(str, data.size))} do not divide by the autoencoder's stride",
            where="autoencoder",
            expected=f"sides that are multiples of {autoencoder.stride}",
            got=str(uneven[0]),
            remedy="change the data's size",
        )
    size = tuple(side // autoencoder.stride for side in data.size)
    return Space(channels=autoencoder.latent_channels, size=size, low=None, high=None)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on `device`."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def take(batch: Batch, part: slice) -> Batch:
    """Return some items of a batch."""
    return {key: value[part] for key, value in batch.items()}


def dataset_prompts(dataset: "Dataset", needs: Iterable[str], wants: Iterable[str] = ()) -> Callable[[int], Batch]:
    """Return a maker of prompts: classes in turn where only labels are needed, else samples of the data set.

    Where nothing is needed, `item` numbers the batch, so that every batch holds a tensor that knows its length.
    What the data lack is left out: whoever needs it says so.

    Args:
        dataset: Where samples come from.
        needs: Keys of the prompts.
        wants: Further keys, where the samples have them.
    """
    keys = sorted({*needs, *(set(wants) & set(dataset.holds))})

    def prompts(count: int) -> Batch:
        if not keys:
            return {"item": torch.arange(count)}
        if keys == ["label"] and dataset.classes:
            return {"label": torch.arange(count) % len(dataset.classes)}
        from diffloom.data import collate

        samples = [dataset.get(i % len(dataset)) for i in range(count)]
        return collate([{key: sample[key] for key in keys if key in sample} for sample in samples])

    return prompts
