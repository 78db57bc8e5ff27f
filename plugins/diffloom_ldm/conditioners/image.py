"""Image: shows a denoiser another image beside x_t: one of low resolution, or the source of a translation.

With noise augmentation (Ho et al. 2022, cascaded diffusion; Stable Diffusion's ×4 upscaler) the image is noised to a
level ℓ of the schedule, drawn evenly from 0 … `noise` in training and chosen in sampling, and ℓ is told through the
vector port. So the network learns how far to trust what it is shown.
"""

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from diffloom.autoencoder import Autoencoder
from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.data import Dataset
from diffloom.denoiser import Denoiser
from diffloom.errors import DataError, IncompatibleParts
from diffloom.noise import Noise
from diffloom.schedule import Schedule
from diffloom_ldm.conditioners.ports import Borrowed


class Image(Conditioner):
    """An image on the port beside x_t, brought to its size. Nothing said is an image of zeros.

    Args:
        key: Where a batch has it.
        channels: How many it has; by default those of the data's images.
        encode: Show its latents, the most likely code, instead of its pixels.
        noise: Highest level ℓ of noise augmentation in training; 0 for none.
        level: ℓ in sampling, at most `noise`.
        autoencoder: Encodes it; neither trained nor saved here.
        denoiser: Whose vector port is told ℓ.
        schedule: Whose levels ℓ counts.
        dataset: The data.

    Raises:
        IncompatibleParts: The denoiser has no vector port to be told the level by.
        ValueError: The level is above the highest.
    """

    def __init__(
        self,
        *,
        key: str = "low_res",
        channels: Annotated[int, Field(gt=0)] | None = None,
        encode: bool = False,
        noise: Annotated[int, Field(ge=0)] = 0,
        level: Annotated[int, Field(ge=0)] = 0,
        autoencoder: Autoencoder,
        denoiser: Denoiser,
        schedule: Schedule | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        super().__init__()
        if level > noise:
            raise ValueError(f"level {level} is above the highest that training sees, noise: {noise}")
        self.key, self.level = key, level
        self.needs = (key,)
        self.encoded = encode
        self._borrowed = Borrowed(autoencoder)
        self.schedule = schedule
        channels = channels or (dataset.space.channels if dataset is not None else autoencoder.latent_channels)
        beside = autoencoder.latent_channels if encode else channels
        self.levels = self._levels(noise, denoiser) if noise else None
        self.gives = Ports(concat=beside, vector=0 if self.levels is None else denoiser.ports.vector)

    def encode(self, batch: Batch) -> Condition:
        """Return the image, or its latents, (B, C′, h, w), and where levels are told, level 0.

        Args:
            batch: With the image (B, C, h, w) in [−1, 1]; its sides need not be those of x_t.
        """
        image = batch[self.key]
        if self.encoded:
            with torch.no_grad():
                image = self._borrowed.autoencoder.encode(image).mode()
        if image.dim() != 4 or image.shape[1] != self.gives.concat:
            raise DataError(
                "this is not the image that was announced",
                where=self.key,
                expected=f"(B, {self.gives.concat}, h, w)",
                got=str(tuple(image.shape)),
                remedy="set the conditioner's `channels`",
            )
        return self._told(image, torch.zeros(len(image), dtype=torch.int64, device=image.device))

    def vary(self, code: Condition, noise: Noise) -> Condition:
        """Return the code noised to a level drawn in training, or to the chosen one in sampling."""
        image = code.concat
        if self.levels is None or image is None or self.schedule is None:
            return code
        if self.training:
            level = noise.integers(self.levels.num_embeddings, image.device, "level")
        else:
            level = torch.full((len(image),), self.level, device=image.device)
        noised = self.schedule.diffuse(image, level, noise.normal(image, "augment"))
        kept = (level == 0).view(-1, 1, 1, 1)
        return self._told(torch.where(kept, image, noised), level)

    def null(self, code: Condition) -> Condition:
        """Return an image of zeros; a level stays as it is."""
        return replace(code, concat=None if code.concat is None else torch.zeros_like(code.concat))

    def forward(self, code: Condition, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        """Return the code with its image brought to the size of x_t, by a bicubic filter."""
        image = code.concat
        if image is None or image.shape[2:] == x_t.shape[2:]:
            return code
        resized = functional.interpolate(image, x_t.shape[2:], mode="bicubic", antialias=True)
        return replace(code, concat=resized)

    def _told(self, image: Tensor, level: Tensor) -> Condition:
        return Condition(concat=image, vector=None if self.levels is None else self.levels(level))

    def _levels(self, highest: int, denoiser: Denoiser) -> nn.Embedding:
        width = denoiser.ports.vector
        if not width or self.schedule is None or highest >= self.schedule.steps:
            raise IncompatibleParts(
                "the level of noise cannot be told" if not width else "there is no such level of noise",
                where="image.noise",
                expected="a denoiser with a vector port" if not width else "a level of the schedule",
                got="none" if not width else str(highest),
                remedy="set `noise: 0`, or open the port" if not width else "lower `noise`",
            )
        levels = nn.Embedding(highest + 1, width)
        nn.init.normal_(levels.weight, std=width**-0.5)
        return levels
