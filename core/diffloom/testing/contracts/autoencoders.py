"""What every autoencoder must do."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffloom.autoencoder import Autoencoder, Posterior
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom.testing.contracts.base import Contract, Make, applies, close, equal, is_a, require, takes

_DRAWS = 8
_LOG_VARIANCES = (-30.0, 20.0)  # as `Posterior` clamps them
_SCALING = (0.5, 0.25)


class AutoencoderContract(Contract):
    """An autoencoder maps images to smaller latents and back."""

    kind: ClassVar[str] = "autoencoder"

    def check_shapes(self, make: Make) -> None:
        """Latents are (B, latent_channels, H/stride, W/stride); decoding gives the image's shape, finite."""
        part, x = self._part(make)
        with torch.no_grad():
            code = part.encode(x)
            is_a(code, Posterior, "what encode returns")
            z = code.mode()
            again = part.decode(z)
        wanted = (2, part.latent_channels, *(side // part.stride for side in x.shape[2:]))
        require(tuple(z.shape) == wanted, f"latents are {tuple(z.shape)}, declared {wanted}")
        channels = part.image_channels or again.shape[1]
        require(again.shape[1] == channels, f"images have {again.shape[1]} channels, declared {channels}")
        require(again.shape == x.shape, f"images come back as {tuple(again.shape)}")
        require(bool(again.isfinite().all()), "what comes back is not finite")

    def check_draws_depend_on_seeds_alone(self, make: Make) -> None:
        """Equal seeds give equal latents, and an item's draw does not depend on its batch."""
        part, x = self._part(make)
        with torch.no_grad():
            one, other = (part.encode(x).sample(Noise([3, 4])) for _ in range(2))
            alone = part.encode(x[1:]).sample(Noise([4]))
        equal(one, other, "two draws with equal seeds")
        close(one[1:], alone, 1e-4, "item 1")

    def check_draws_are_those_of_the_posterior(self, make: Make) -> None:
        """Draws are mean + std · ε: they deviate by the declared variance, and not at all where there is none."""
        part, x = self._part(make)
        with torch.no_grad():
            code = part.encode(x)
            draws = torch.stack([code.sample(Noise([seed, seed + 50])) for seed in range(_DRAWS)])
        equal(code.mode(), code.mean, "the mode and the mean")
        if code.logvar is None:
            equal(draws[0], code.mean, "a draw from a deterministic code and its mean")
            return
        spread = (draws - code.mean) / code.logvar.clamp(*_LOG_VARIANCES).mul(0.5).exp()
        bound = 6 / spread.numel() ** 0.5  # six standard errors of a mean, and of a standard deviation
        require(abs(float(spread.mean())) < bound, f"draws are {float(spread.mean()):.3f} standard deviations off")
        require(abs(float(spread.std()) - 1) < bound, f"draws deviate {float(spread.std()):.3f} times what is declared")

    def check_divergence(self, make: Make) -> None:
        """KL(q ‖ N(0, I)) is ½ Σ (mean² + var − 1 − ln var) for each item, and 0 for a deterministic code."""
        part, x = self._part(make)
        with torch.no_grad():
            code = part.encode(x)
            kl = code.kl()
        require(tuple(kl.shape) == (2,), f"its shape is {tuple(kl.shape)}")
        if code.logvar is None:
            require(not bool(kl.any()), f"it is {kl.tolist()} for a deterministic code")
            return
        logvar = code.logvar.clamp(*_LOG_VARIANCES).double()
        terms = code.mean.double().square() + logvar.exp() - 1 - logvar
        close(kl, 0.5 * terms.flatten(1).sum(1), 1e-4, "it and the closed form")

    def check_scale_and_shift(self, make: Make) -> None:
        """Latents are (raw − shift) · scale, and decoding undoes it: the image is the same for any scale and shift."""
        given = make()
        applies(takes(given, "scale") and takes(given, "shift"), "it takes no scale and shift")
        found = []
        for scale, shift in ((1.0, 0.0), _SCALING):
            part, x = self._part(lambda scale=scale, shift=shift: make(scale=scale, shift=shift))
            with torch.no_grad():
                code = part.encode(x)
                found.append((code, part.decode(code.mode())))
        (raw, plain), (scaled, again) = found
        scale, shift = _SCALING
        close(scaled.mean, (raw.mean - shift) * scale, 1e-4, "scaled latents")
        if raw.logvar is not None and scaled.logvar is not None:
            close(scaled.logvar, raw.logvar + 2 * math.log(scale), 1e-4, "the log-variance of scaled latents")
        close(again, plain, 1e-3, "images decoded with one scale and with another")

    def check_images_and_latents_matter(self, make: Make) -> None:
        """Another image has another latent, and another latent another image."""
        part, x = self._part(make)
        with torch.no_grad():
            z = part.encode(x).mode()
            require(not torch.equal(part.encode(-x).mode(), z), "every image has the same latent")
            far = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)) * 3
            far = far.clamp(-1, 1) if part.bounded else far
            require(not torch.equal(part.decode(far), part.decode(z)), "every latent is decoded to the same image")

    def check_items_do_not_depend_on_their_batch(self, make: Make) -> None:
        """An item is encoded and decoded as it is alone, and what is given stays as it is."""
        part, x = self._part(make)
        kept = x.clone()
        with torch.no_grad():
            z = part.encode(x).mode().clone()
            held = z.clone()
            images = part.decode(z)
            close(part.encode(x[1:]).mode(), z[1:], 1e-4, "the latent of item 1")
            close(part.decode(z[1:]), images[1:], 1e-4, "the image of item 1")
        equal(x, kept, "images after they were encoded")
        equal(z, held, "latents after they were decoded")

    def check_shapes_on_the_meta_device(self, make: Make) -> None:
        """It can be built and run on the meta device, so recipes can be checked without memory."""
        with torch.device("meta"), torch.no_grad():
            part, x = self._part(make)
            image = part.decode(part.encode(x.to("meta")).mode())
        require(image.shape == x.shape and image.device.type == "meta", "the shape or device changed")

    def check_bounded_latents_stay_in_range(self, make: Make) -> None:
        """Latents that are declared bounded keep the images' range."""
        part, x = self._part(make)
        applies(part.bounded, "its latents are not bounded")
        with torch.no_grad():
            require(float(part.encode(x).mode().abs().max()) <= 1, "a latent is out of range")

    def _part(self, make: Make) -> tuple[Autoencoder, Tensor]:
        space: Any = self.provided[Space]
        part: Autoencoder = make().eval()
        size = tuple(-(-side // part.stride) * part.stride for side in space.size)
        generator = torch.Generator("cpu").manual_seed(0)
        x = torch.rand(2, space.channels, *size, generator=generator, device="cpu") * 2 - 1
        return part, x
