"""WrapFeatures: StableSR's second stage, in which a decoder learns how to look at the small image.

The diffusion model of the first stage enlarges damaged images; what its decoder makes of those latents, beside what the
encoder sees of the small image, is held against the true image by L1, a perceptual distance and a discriminator of a
fixed weight. Encoder, decoder and diffusion model stay as they are, and w is 1 (Wang et al. 2023, section 3.3).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffloom.autoencoder import Autoencoder, Posterior
from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom.noise import Noise
from diffloom.system import System
from diffloom.task import Objective
from diffloom_ldm.tasks.autoencode import Adversarial, Autoencode, Draft, Perceptual
from diffloom_ldm.tasks.restoration import Guess
from diffloom_stablesr.task import StableSR, guide_of
from diffloom_stablesr.wrapping import FeatureWrapping

PUBLISHED = Adversarial(weight=0.025, start=501, adaptive=False)


class WrapFeatures(Autoencode):
    """Trains the fusions of a `feature-wrapping` autoencoder on what the recipe's sampler makes of small images.

    An adaptive adversarial weight looks at the decoder's last layer, which does not move here; so it is fixed.

    Args:
        perceptual: A perceptual distance, beside L1.
        adversarial: A discriminator; null for none.
        autoencoder: What is trained.
    """

    examples: ClassVar[Any] = ({"adversarial": None},)

    def __init__(
        self,
        *,
        perceptual: Perceptual | None = None,
        adversarial: Adversarial | None = PUBLISHED,
        autoencoder: Autoencoder | None = None,
    ) -> None:
        if adversarial is not None and adversarial.adaptive:
            raise IncompatibleParts(
                "an adaptive weight needs a last layer that learns, and the decoder's is frozen here",
                where="task.adversarial.adaptive",
                expected="false",
            )
        super().__init__(
            reconstruction="l1",
            kl=0.0,
            reduction="mean",
            perceptual=perceptual,
            adversarial=adversarial,
            autoencoder=autoencoder,
        )
        self.needs = ("image", "low_res")
        self.answers = StableSR()

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return `autoencoder`, over the fusions alone, and `discriminator` where there is one.

        Raises:
            IncompatibleParts: The autoencoder wraps no features.
        """
        if not isinstance(system.autoencoder, FeatureWrapping):
            raise IncompatibleParts(
                "there are no fusions to train",
                where="autoencoder",
                expected="{type: feature-wrapping, base: …}",
                got=type(system.autoencoder).__name__,
            )
        first, *rest = super().objectives(system)
        mine = {name: p for name, p in first.parameters.items() if name.startswith("autoencoder.fusions.")}
        return [Objective(first.name, mine, first.loss), *rest]

    def draft(self, system: System, batch: Batch, noise: Noise) -> Draft:
        """Return true images, and what the wrapped decoder makes of the diffusion model's answers."""
        name, guide = guide_of(system)
        part = system.autoencoder
        if not isinstance(part, FeatureWrapping):
            raise TypeError("the autoencoder wraps no features")
        with torch.no_grad():
            codes = system.codes(batch, noise)
            z = system.walk(batch, noise, x0=codes[name], codes=codes)
        image = part.restore(z, guide.enlarged(batch[guide.key]), fidelity=1.0)
        return Draft(batch["image"], Posterior(z), image, None)

    def guesses(self) -> Mapping[str, Guess]:
        """Return the `bicubic` enlargement."""
        return self.answers.guesses()

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return enlarged images, `image` in [−1, 1]; see `StableSR.predict`."""
        return self.answers.predict(system, batch, noise)
