"""Autoencode: learn to bring images into a latent space and back (Rombach et al. 2022, section 3.1 and appendix G).

The loss of an item is −ln p(x|z) + D · LPIPS(x, x̂) + β KL(q(z|x) ‖ N(0, I)) + w g, D being its number of values and g
what a discriminator thinks of x̂. With a likelihood, β = 1 and nothing else it is the negative variational bound.

Law: the discriminator learns from detached images, so its step leaves the autoencoder alone; both are ordinary
objectives. When training ends, the scale of the latents is measured and saved with the weights.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom.autoencoder import Autoencoder, Posterior, ScaledAutoencoder
from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.system import System
from diffloom.task import Loss, Objective, Task
from diffloom_ldm.autoencoders.codebook import Quantised
from diffloom_ldm.losses.likelihood import DENSITIES, SPREAD, Reconstruction, distortion
from diffloom_ldm.losses.patch_gan import GanLoss, PatchGAN, adaptive_weight, discriminator_loss, generator_loss
from diffloom_ldm.losses.perceptual import LPIPS

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Steps = Annotated[int, Field(ge=0)]


class _Term(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Perceptual(_Term):
    """A perceptual distance in the loss."""

    backbone: Annotated[
        str,
        Field(
            description="A file with VGG16's convolutions, or `random`: features of no use "
            "as a measure, but better than none as a loss."
        ),
    ]
    linear: Annotated[str | None, Field(description="A file with LPIPS's linear weights.")] = None
    weight: Annotated[float, Field(gt=0, description="Of the distance, beside the error per value.")] = 1.0


class Adversarial(_Term):
    """A discriminator in the loss."""

    weight: Annotated[float, Field(gt=0, description="Of the adversarial loss.")] = 0.5
    start: Annotated[int, Field(ge=0, description="Steps before both sides of it begin.")] = 0
    loss: Annotated[GanLoss, Field(description="hinge, or vanilla, whose generator's side is non-saturating.")] = (
        "hinge"
    )
    adaptive: Annotated[
        bool,
        Field(
            description="Multiply the weight so that gradients at the decoder's last layer "
            "are as large as those of the rest."
        ),
    ] = True
    layers: Annotated[int, Field(gt=0, description="Halvings of the discriminator: 3 see patches of 70 pixels.")] = 3
    channels: Annotated[int, Field(gt=0, description="Width of the discriminator's first layer.")] = 64


@runtime_checkable
class Quantising(Protocol):
    """An autoencoder with a codebook."""

    def quantised_picture(self, raw: Tensor, noise: Noise) -> tuple[Tensor, Quantised]:
        """Return images, through which gradients pass, and how latents became codes."""


@dataclass(frozen=True, eq=False)
class Draft:
    """Images, and what came back.

    Attributes:
        x: True images, (B, C, H, W).
        posterior: Over raw latents.
        image: What came back, the shape of x.
        quantised: How latents became codes, where they did.
    """

    x: Tensor
    posterior: Posterior
    image: Tensor
    quantised: Quantised | None


class Autoencode(Task):
    """Trains an autoencoder; its answer to an image is what comes back of it.

    Args:
        reconstruction: −ln p(x|z): `l1` and `l2` are plain sums of errors; `gaussian`, `laplace` and `discretised` (a
            Gaussian cut into 256 grey levels) are normalised and have a width; `bernoulli` takes greys for chances
            and needs an autoencoder whose output is held to (−1, 1).
        width: Standard deviation, or the scale b of the Laplace, of the normalised likelihoods; learned by default.
        kl: β, weight of the rate KL(q ‖ N(0, I)).
        kl_warmup: Steps over which the weight rises from 0.
        free_bits: λ in nats: below it, the batch's mean rate of a latent number costs nothing more.
        codebook: Weight of a codebook's loss.
        perceptual: A perceptual distance, beside the error.
        adversarial: A discriminator.
        reduction: `sum` takes sums over an image's values, as released KL models do; `mean` divides them by their
            number, as released VQ models do and is the default with a codebook.
        latents: What is measured after training: scale and shift of each `channel`, or one `shared` scale.
        measured: How many images it is measured on.
        autoencoder: What is trained.

    Raises:
        IncompatibleParts: If these choices exclude each other, or the autoencoder does not suit them.
    """

    paired = True
    examples: ClassVar = (
        {"reconstruction": "gaussian"},
        {"reconstruction": "laplace", "adversarial": {"layers": 1, "channels": 8, "adaptive": False}},
    )

    def __init__(
        self,
        *,
        reconstruction: Reconstruction = "l1",
        width: Positive | None = None,
        kl: NotNegative = 1e-6,
        kl_warmup: Steps = 0,
        free_bits: NotNegative = 0.0,
        codebook: Positive = 1.0,
        perceptual: Perceptual | None = None,
        adversarial: Adversarial | None = None,
        reduction: Literal["sum", "mean"] | None = None,
        latents: Literal["channel", "shared"] = "channel",
        measured: Count = 512,
        autoencoder: Autoencoder | None = None,
    ) -> None:
        super().__init__()
        self.reconstruction: Reconstruction = reconstruction
        self.kl, self.kl_warmup, self.free_bits, self.codebook = kl, kl_warmup, free_bits, codebook
        self.perceptual, self.adversarial = perceptual, adversarial
        self.reduction, self.latents, self.measured = reduction, latents, measured
        learned = width is None and reconstruction in SPREAD
        log_width = torch.tensor(math.log(width or 1.0))
        self.log_width: Tensor
        if learned:
            self.log_width = nn.Parameter(log_width)
        else:
            self.register_buffer("log_width", log_width, persistent=False)
        self.distance = None
        if perceptual is not None:
            self.distance = LPIPS(backbone=perceptual.backbone, linear=perceptual.linear)
        self.discriminator = None
        if adversarial is not None:
            self.discriminator = _discriminator(adversarial, autoencoder)
        if width is not None and reconstruction not in SPREAD:
            raise IncompatibleParts(
                f"'{reconstruction}' has no width",
                where="task.width",
                expected=f"one of {', '.join(SPREAD)}, or no width",
            )

    # --- objectives --------------------------------------------------------------------------------------------

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return `autoencoder`, and `discriminator` where there is one.

        Raises:
            IncompatibleParts: If the autoencoder does not suit the losses.
        """
        self._check(system)
        parameters = {f"autoencoder.{name}": p for name, p in system.autoencoder.named_parameters()}
        if isinstance(self.log_width, nn.Parameter):
            parameters["task.log_width"] = self.log_width
        made = [Objective("autoencoder", parameters, partial(self._loss, system))]
        if self.discriminator is not None:
            judge = {f"task.discriminator.{name}": p for name, p in self.discriminator.named_parameters()}
            made.append(Objective("discriminator", judge, partial(self._judge, system)))
        return made

    def draft(self, system: System, batch: Batch, noise: Noise) -> Draft:
        """Return what comes back of a batch's images, through a draw from the posterior."""
        x, part = batch["image"], system.autoencoder
        posterior = part.encode(x).unscaled(part.scale, part.shift)
        raw = posterior.sample(noise)
        if isinstance(part, Quantising):
            image, quantised = part.quantised_picture(raw, noise)
            return Draft(x, posterior, image, quantised)
        return Draft(x, posterior, part.decode((raw - part.shift) * part.scale), None)

    def _loss(self, system: System, batch: Batch, noise: Noise) -> Loss:
        draft = self.draft(system, batch, noise)
        values = draft.x[0].numel()
        unit = values if (self.reduction or ("mean" if draft.quantised else "sum")) == "mean" else 1
        nll, terms = self._nll(draft)
        rate = draft.posterior.divergence().flatten(1)
        terms["rate"] = rate.detach().sum(1).mean()
        free = rate.mean(0).clamp(min=self.free_bits).sum() if self.free_bits else rate.sum(1).mean()
        value = nll.mean() / unit + self._beta() * free / unit
        if draft.quantised is not None:
            value = value + self.codebook * draft.quantised.loss
            terms |= {key: getattr(draft.quantised, key).detach() for key in ("perplexity", "usage")}
            terms["codebook"] = draft.quantised.loss.detach()
        if self.adversarial is not None and self._judging():
            value = value + self._adversarial(system, draft, nll.mean() / unit, terms)
        return Loss(value, terms)

    def _nll(self, draft: Draft) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what does not concern the code, per item (B,), and figures."""
        nll = distortion(self.reconstruction, draft.x, draft.image, self.log_width)
        error = (draft.image - draft.x).detach()
        terms = {"distortion": nll.detach().mean(), "l1": error.abs().mean(), "mse": error.square().mean()}
        if self.distance is not None and self.perceptual is not None:
            seen = self.distance(draft.image, draft.x)
            terms["perceptual"] = seen.detach().mean()
            nll = nll + self.perceptual.weight * draft.x[0].numel() * seen
        return nll, terms

    def _adversarial(self, system: System, draft: Draft, loss: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """Return the weighted adversarial loss, 0-d; `terms` get its figures."""
        if self.adversarial is None or self.discriminator is None:
            raise TypeError("there is no discriminator")
        generator = generator_loss(self.adversarial.loss, self.discriminator(draft.image))
        weight = torch.as_tensor(self.adversarial.weight, device=loss.device)
        if self.adversarial.adaptive and torch.is_grad_enabled():
            weight = weight * adaptive_weight(loss, generator, _last_layer(system.autoencoder))
        terms |= {"generator": generator.detach(), "adversarial_weight": weight}
        return weight * generator

    def _judge(self, system: System, batch: Batch, noise: Noise) -> Loss:
        """Return the discriminator's loss on images that are detached; 0 before it begins."""
        if self.adversarial is None or self.discriminator is None:
            raise TypeError("there is no discriminator")
        if not self._judging():
            return Loss(sum((p.sum() * 0 for p in self.discriminator.parameters()), torch.zeros(())))
        with torch.no_grad():
            image = self.draft(system, batch, noise).image
        real, fake = self.discriminator(batch["image"]), self.discriminator(image)
        loss = discriminator_loss(self.adversarial.loss, real, fake)
        return Loss(loss, {"real": real.detach().mean(), "fake": fake.detach().mean()})

    def _judging(self) -> bool:
        return self.adversarial is not None and self.step >= self.adversarial.start

    def _beta(self) -> float:
        return self.kl * (min(1.0, self.step / self.kl_warmup) if self.kl_warmup and self.training else 1.0)

    # --- answers -----------------------------------------------------------------------------------------------

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return what comes back of images of any size, by the most likely code: `image` in [−1, 1]."""
        x, stride = batch["image"], system.autoencoder.stride
        high, wide = x.shape[2:]
        padded = functional.pad(x, (0, -wide % stride, 0, -high % stride), mode="replicate")
        image = system.autoencoder.decode(system.autoencoder.encode(padded).mode())
        return {"image": image[..., :high, :wide].clamp(-1, 1)}

    def finish(self, system: System, batches: Iterator[tuple[Batch, Noise]]) -> None:
        """Measure scale and shift of the latents, where the recipe gives none."""
        part = system.autoencoder
        if isinstance(part, ScaledAutoencoder) and not part.given:
            batch, noise = next(batches)
            count = -(-self.measured // len(noise))
            rest = ((b["image"], n) for b, n in islice(batches, count - 1))
            part.measure(_after((batch["image"], noise), rest), shared=self.latents == "shared")

    def bits_per_dim(
        self, system: System, batch: Batch, noise: Noise, *, steps: int | None = None
    ) -> dict[str, Tensor]:
        """Return the variational bound on −log₂ p of images, bits for each of their values, and its terms.

        A density of images in [−1, 1] is that of 256 grey levels 2/255 apart.

        Args:
            system: In evaluation mode.
            batch: With `image` (B, C, H, W).
            noise: Of the draw from the posterior.
            steps: There is no chain: not used.

        Returns:
            `total` = `kl` + `reconstruction`, each (B,).

        Raises:
            IncompatibleParts: The reconstruction is no likelihood of grey levels.
        """
        if self.reconstruction not in (*DENSITIES, "discretised"):
            raise IncompatibleParts(
                "the reconstruction is no likelihood of grey levels",
                where="task.reconstruction",
                expected=", ".join((*DENSITIES, "discretised")),
                got=self.reconstruction,
            )
        draft = self.draft(system, batch, noise)
        unit = draft.x[0].numel() * math.log(2)
        level = math.log2(255 / 2) if self.reconstruction in DENSITIES else 0.0
        found = distortion(self.reconstruction, draft.x, draft.image, self.log_width) / unit + level
        rate = draft.posterior.kl() / unit
        return {"total": found + rate, "kl": rate, "reconstruction": found}

    def evidence(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return what is known of −ln p(x) from one draw z of the posterior, in nats, each (B,).

        Args:
            system: In evaluation mode.
            batch: With `image` (B, C, H, W).
            noise: Of the draw.

        Returns:
            `distortion` −ln p(x|z), `rate` KL(q(z|x) ‖ N(0, I)) and `log_weight` ln p(x|z) p(z)/q(z|x), whose mean
            is the bound, and whose exponential is p(x) in the mean.

        Raises:
            IncompatibleParts: The code has no variance.
        """
        x, part = batch["image"], system.autoencoder
        posterior = part.encode(x).unscaled(part.scale, part.shift)
        if posterior.logvar is None:
            raise IncompatibleParts(
                "a code without variance has no rate",
                where=f"the autoencoder {type(part).__name__}",
                remedy="use an autoencoder with a posterior, such as vae or kl",
            )
        raw = posterior.sample(noise)
        image = part.decode((raw - part.shift) * part.scale)
        cost = distortion(self.reconstruction, x, image, self.log_width)
        prior = Posterior(torch.zeros_like(raw), torch.zeros_like(raw))
        log_weight = posterior.nll(raw) - prior.nll(raw) - cost
        return {"distortion": cost, "rate": posterior.kl(), "log_weight": log_weight}

    def _check(self, system: System) -> None:
        """Refuse an autoencoder that does not suit the losses."""
        if self.reconstruction == "bernoulli" and not getattr(system.autoencoder, "saturated", False):
            raise IncompatibleParts(
                "bernoulli takes what comes back for chances, and nothing holds it to (−1, 1)",
                where="task.reconstruction",
                remedy="use an autoencoder with `output: sigmoid` (vae), or another likelihood",
            )
        if self.discriminator is not None and self.adversarial is not None:
            self.discriminator.require(system.plan.data_space.size)
            if self.adversarial.adaptive:
                _last_layer(system.autoencoder)


def _discriminator(settings: Adversarial, autoencoder: Autoencoder | None) -> PatchGAN:
    if autoencoder is None or not autoencoder.image_channels:
        raise IncompatibleParts(
            "the autoencoder does not say how many channels its images have",
            where="task.adversarial",
            remedy="set its attribute image_channels; in Python, pass autoencoder=…",
        )
    return PatchGAN(autoencoder.image_channels, width=settings.channels, layers=settings.layers)


def _last_layer(autoencoder: Autoencoder) -> nn.Parameter:
    found = getattr(autoencoder, "last_layer", None)
    if not isinstance(found, nn.Parameter):
        raise IncompatibleParts(
            "an adaptive weight looks at the decoder's last layer, and the autoencoder does not show it",
            where="task.adversarial.adaptive",
            remedy="set it to false, or give the autoencoder a `last_layer`",
        )
    return found


def _after(first: tuple[Tensor, Noise], rest: Iterator[tuple[Tensor, Noise]]) -> Iterator[tuple[Tensor, Noise]]:
    yield first
    yield from rest
