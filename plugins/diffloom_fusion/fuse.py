"""Fuse: one image of several modalities, from what a diffusion model sees in them (Yue et al. 2023).

A denoiser that learned the modalities together (stage one, task `generate`) is frozen. Its feature maps of the images,
lightly noised to a few times, go to a head that answers in one pass; only the head learns (stage two).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from diffloom.conditioner import Batch
from diffloom.data import Dataset
from diffloom.denoiser import Denoiser
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise, mix
from diffloom.space import Space
from diffloom.system import System
from diffloom.task import Loss, Objective
from diffloom_fusion import losses
from diffloom_fusion.blend import Blend, grey
from diffloom_fusion.features import Spread, chosen, extract, padded, times
from diffloom_fusion.head import FusionHead
from diffloom_fusion.held import held
from diffloom_fusion.kept import Kept, Maps, view
from diffloom_fusion.rules import PAIR

Weight = Annotated[float, Field(ge=0)]

_GIB = 2**30


class Fuse(Blend):
    """Fusion by a head over a frozen denoiser's feature maps; stage two of Dif-Fusion.

    `image` of the data, on which the denoiser was trained, must be the modalities joined in their order. Features of
    views that come again are kept, so that the denoiser is not asked twice; views differ as long as crops or flips are
    drawn anew, so let the data set give windows (`patch`) instead. Noise is then a function of the view.

    Args:
        denoiser: Whose feature maps are read.
        space: Of the images: how many channels the modalities have together.
        dataset: Whose order of modalities is taken by default.
        modalities: Keys of the batch in the order in which the denoiser knows them; the first gives the fused image its
            channels and colours. By default the data set's order; visible and infrared where it tells none.
        timesteps: Times at which features are read, 0-based; the paper's 5, 50, 100 of 2000 are counted from 1.
        spread: Whether a time is taken exactly, or drawn between it and the time before.
        taps: What is read, one tap of each stride; by default the first of the way up at each stride.
        output: `colour` answers with the fused image itself, as in the paper. `mix` answers with a weight for every
            pixel of each further modality, by which its light replaces the first's: colour differences are kept, and
            every pixel is a mixture of what was there.
        sharpness: How much steeper than learned the weights of `mix` rise about ½ in a prediction. 1 leaves them; a
            large number decides every pixel for one side, so that its value is one that was there.
        target: What the fused image should be as bright as; see `losses.target`.
        intensity: Weight of the distance to that target.
        gradient: Weight of the distance to the strongest gradient.
        colour: Weight of the distance to the first modality's colour differences.
        finest: Whether the head uses the finest maps; the published code does not.
        drop: Modality → probability that training goes without it, per sample; one always stays.
        keep: Most memory for kept features, in GiB; 0 keeps none.
        keep_type: The type in which they are kept, and the head is given them.
    """

    examples: ClassVar[tuple[dict[str, object], ...]] = ({"modalities": ("visible",), "drop": {}},)

    def __init__(
        self,
        *,
        denoiser: Denoiser,
        space: Space,
        dataset: Dataset | None = None,
        modalities: tuple[str, ...] | None = None,
        timesteps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (4, 49, 99),
        spread: Spread = "exact",
        taps: tuple[str, ...] | None = None,
        output: Literal["colour", "mix"] = "colour",
        sharpness: Annotated[float, Field(ge=1)] = 1.0,
        target: losses.Target = "max",
        intensity: Weight = 1.0,
        gradient: Weight = 1.0,
        colour: Weight = 0.0,
        finest: bool = True,
        drop: Mapping[str, Annotated[float, Field(ge=0, lt=1)]] | None = None,
        keep: Annotated[float, Field(ge=0)] = 2.0,
        keep_type: Literal["float32", "float16", "bfloat16"] = "float16",
    ) -> None:
        known: Mapping[str, int] = getattr(dataset, "modalities", {})
        super().__init__(modalities or tuple(known) or PAIR)
        self.channels = _widths(self.modalities, known, space)
        self.timesteps, self.spread, self.output, self.target = timesteps, spread, output, target
        self.sharpness = sharpness
        self.weights = {"intensity": intensity, "gradient": gradient, "colour": colour}
        if not any(self.weights.values()):
            raise _refused("intensity", "a loss of some weight", "weights of 0 alone")
        self.drop = dict(drop or {})
        unknown = sorted(set(self.drop) - set(self.modalities))
        if unknown:
            raise _refused("drop", f"some of {', '.join(self.modalities)}", unknown[0])
        self.taps = chosen(denoiser, taps)
        self.multiple = max(tap.stride for tap in denoiser.taps)
        self.dtype = getattr(torch, keep_type)
        self.kept = Kept(int(keep * _GIB))
        self.head = FusionHead(
            widths=[tap.channels for tap in self.taps],
            times=len(timesteps),
            out_channels=self.channels[0] if output == "colour" else max(1, len(self.modalities) - 1),
            finest=finest,
        )

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return the one objective, `fuse`, over the head; the denoiser is frozen.

        Raises:
            IncompatibleParts: The system works in latents, or tells its denoiser something.
        """
        _fits(system)
        system.denoiser.requires_grad_(False)
        return [Objective("fuse", dict(self.head.named_parameters(prefix="head")), partial(self._loss, system))]

    def fuse(self, system: System, given: Mapping[str, Tensor], noise: Noise) -> Tensor:
        """Return the fused images (B, C, H, W) in [−1, 1]; any size, any of the modalities missing."""
        _fits(system)
        images = padded(self.joint(given), self.multiple)
        levels = self._read(system, images, noise.within("features"))
        height, width = next(iter(given.values())).shape[-2:]
        sides = {key: padded(image, self.multiple) for key, image in given.items()}
        return self._answer(levels, sides, self.sharpness)[..., :height, :width]

    def joint(self, given: Mapping[str, Tensor]) -> Tensor:
        """Return all modalities in order, (B, all channels, H, W); what is missing is 0, a middle grey."""
        like = next(iter(given.values()))
        shape = (like.shape[0], 1, *like.shape[2:])
        parts = []
        for key, channels in zip(self.modalities, self.channels, strict=True):
            part = given.get(key)
            if part is not None and part.shape[1] != channels:
                raise IncompatibleParts(
                    f"'{key}' does not have the channels that the denoiser learned",
                    where="task.modalities",
                    expected=str(channels),
                    got=str(part.shape[1]),
                )
            parts.append(like.new_zeros(shape).expand(-1, channels, -1, -1) if part is None else part)
        return torch.cat(parts, 1)

    def features(self, system: System, images: Tensor) -> list[Tensor]:
        """Return each level's maps of images (B, C, H, W), with noise that is a function of each image; kept.

        Every image is looked at by itself, so that its maps do not depend on what else is in the batch.
        """
        rows = [self._known(system, image) for image in images]
        return [torch.cat([row[tap.name] for row in rows]).to(images) for tap in self.taps]

    def _known(self, system: System, image: Tensor) -> Maps:
        key = view(image)
        found = self.kept.find(key)
        if found is None:
            noise = Noise([mix("view", key)], scope=("features",))
            levels = self._read(system, image[None], noise)
            found = {tap.name: maps.to(self.dtype) for tap, maps in zip(self.taps, levels, strict=True)}
            self.kept.keep(key, found)
        return found

    def _read(self, system: System, images: Tensor, noise: Noise) -> list[Tensor]:
        """Return each level's maps of images, rounded as they are when kept."""
        t = times(noise, self.timesteps, self.spread)
        maps = extract(system, images, [tap.name for tap in self.taps], t, noise)
        return [maps[tap.name].to(self.dtype).to(images.dtype) for tap in self.taps]

    def _answer(self, levels: Sequence[Tensor], given: Mapping[str, Tensor], sharpness: float = 1.0) -> Tensor:
        """Return the fused images that the head makes of maps, in the size of the modalities."""
        first, others = self._sides(given)
        said = self.head(levels)
        if said.shape[-2:] != first.shape[-2:]:
            said = functional.interpolate(said, size=first.shape[-2:], mode="bilinear", align_corners=True)
        if self.output == "colour":
            return torch.tanh(said)
        light, fused = grey(first), first
        shares = dict(zip(self.modalities[1:], torch.split(held(sharpness * said + 0.5), 1, 1), strict=False))
        for key, other in others.items():
            fused = fused + shares[key] * (grey(other) - light) / len(others)
        return fused

    def _sides(self, given: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the modality that gives the colours, with the first's channels, and the others that there are."""
        (name, first), *rest = given.items()
        if name != self.modalities[0]:
            first = grey(first).expand(-1, self.channels[0], -1, -1)
        return first, dict(rest)

    def _loss(self, system: System, batch: Batch, noise: Noise) -> Loss:
        given = self.given(batch)
        images = self.joint(given)
        present = self._present(given, noise)
        images = images * torch.cat(
            [present[key][:, None].expand(-1, n) for key, n in zip(self.modalities, self.channels, strict=True)], 1
        )[..., None, None].to(images)
        kept = self.kept.limit > 0 and images.device.type != "meta"
        levels = self.features(system, images) if kept else self._read(system, images, noise.within("features"))
        terms: dict[str, list[Tensor]] = {}
        for items, keys in _patterns(present):
            some = {key: given[key][items] for key in keys}
            fused = self._answer([maps[items] for maps in levels], some)
            for name, value in self._terms(fused, some).items():
                terms.setdefault(name, []).append(value)
        means = {name: torch.cat(values).mean() for name, values in terms.items()}
        total = torch.stack([self.weights[name] * value for name, value in means.items()]).sum()
        return Loss(total, {name: value.detach() for name, value in means.items()})

    def _terms(self, fused: Tensor, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of each item, (B,), by name; those that count."""
        first, rest = self._sides(given)
        others = list(rest.values())
        made: dict[str, Callable[[], Tensor]] = {
            "intensity": lambda: losses.intensity_loss(fused, losses.target(self.target, first, others)),
            "gradient": lambda: losses.gradient_loss(fused, first, others),
            "colour": lambda: losses.colour_loss(fused, first),
        }
        return {name: make() for name, make in made.items() if self.weights[name]}

    def _present(self, given: Mapping[str, Tensor], noise: Noise) -> dict[str, Tensor]:
        """Return which items go with which modality, bool (B,) on the CPU; each item has one at least."""
        there = {}
        for key in self.modalities:
            drawn = noise.uniform(torch.empty(len(noise)), "drop", key) >= self.drop.get(key, 0.0)
            there[key] = drawn if key in given else torch.zeros_like(drawn)
        none = ~torch.stack(list(there.values())).any(0)
        first = next(iter(given))
        return {**there, first: there[first] | none}


def _patterns(present: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, list[str]]]:
    """Yield the items that have the same modalities, int64 (n,), with these."""
    rows = torch.stack(list(present.values()), 1)
    for row in sorted(set(map(tuple, rows.tolist()))):
        keys = [key for key, there in zip(present, row, strict=True) if there]
        yield (rows == torch.tensor(row)).all(1).nonzero()[:, 0], keys


def _widths(modalities: Sequence[str], known: Mapping[str, int], space: Space) -> tuple[int, ...]:
    """Return how many channels each modality has: as the data set says, else one, and the first the rest."""
    if known and tuple(known) != tuple(modalities):
        raise _refused("modalities", f"{', '.join(known)}, as the data set has them", ", ".join(modalities))
    widths = tuple(known.values()) or (space.channels - len(modalities) + 1, *[1] * (len(modalities) - 1))
    if sum(widths) != space.channels or widths[0] < 1:
        raise _refused("modalities", f"{space.channels} channels together", f"{len(modalities)} modalities")
    return widths


def _fits(system: System) -> None:
    """Refuse a system whose denoiser cannot be asked about plain images."""
    if not system.autoencoder.bounded:
        raise IncompatibleParts(
            "fusion reads features of the images themselves",
            where="autoencoder",
            expected="identity",
            got=type(system.autoencoder).__name__,
            remedy="leave the autoencoder out",
        )
    if system.conditioners:
        raise IncompatibleParts(
            "the denoiser is asked for features without being told anything",
            where="conditioners",
            expected="none",
            got=", ".join(system.conditioners),
            remedy="train stage one without conditioners",
        )


def _refused(key: str, expected: str, got: str) -> IncompatibleParts:
    return IncompatibleParts("the task does not fit", where=f"task.{key}", expected=expected, got=got)
