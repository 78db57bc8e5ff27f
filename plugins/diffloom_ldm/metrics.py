"""How good an autoencoder is: what images look like when they come back, and what their codes cost."""

import math
import re
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor

from diffloom.conditioner import Batch
from diffloom.errors import IncompatibleParts
from diffloom.metric import Evaluation, Metric
from diffloom.noise import Noise, mix
from diffloom.system import System, to_device
from diffloom_ldm.autoencoders.codebook import Codebook
from diffloom_ldm.losses.perceptual import LPIPS, apart
from diffloom_metrics.fidelity import mean_over_pairs
from diffloom_metrics.networks import NETWORK, Network, open_network, verify

_ACTIVE = 0.01


class PerceptualDistance(Metric):
    """LPIPS, the mean over images: 0 for equal ones (Zhang et al. 2018). Any number of bands.

    Only that of a file is the published distance. Figures of the others can be compared with each other, on the same
    data, and with nothing else: all channels count the same, and images keep their size.

    Args:
        backbone: A file with VGG16's convolutions as torchvision and timm store them; `classifier`, which learns the
            classes of the run's own data, or `timm:NAME`, both as `fid` has them; or `random`, VGG16 with weights of
            a fixed seed.
        weights: The file with the weights of `timm:NAME`; nothing is downloaded.
        linear: A file with LPIPS's linear weights; without it all channels count the same.
        prediction: Key of the image in the prediction.
        target: Key of the true image in the batch.
    """

    examples = ({"backbone": "random"}, {"backbone": "classifier"})

    def __init__(
        self,
        *,
        backbone: str,
        linear: str | None = None,
        weights: Path | None = None,
        prediction: str = "image",
        target: str = "image",
    ) -> None:
        self.network, self.judge = None, backbone
        if not re.match(NETWORK, backbone):
            self.network = LPIPS(backbone=backbone, linear=linear, where="the metric `lpips`").eval()
        elif linear is not None:
            raise IncompatibleParts(
                "LPIPS's linear weights are those of another network",
                where="the metric `lpips`",
                expected=f"no `linear` with backbone: {backbone}",
                got=linear,
            )
        self.weights = weights if self.network else verify(backbone, weights)
        self.keys = (prediction, target)

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `lpips/vgg`, `lpips/random`, or `lpips/NETWORK` with what is worth knowing about the network."""
        if self.network is None:
            return self._by_maps(open_network(self.judge, self.weights, evaluation), evaluation)
        device = evaluation.system.device
        network = self.network.to(device)

        def distance(x: Tensor, y: Tensor) -> Tensor:
            found: Tensor = network(x.to(device).float(), y.to(device).float())
            return found.cpu()

        return {f"lpips/{network.name}": mean_over_pairs(evaluation, self.keys, distance)}

    def _by_maps(self, judge: Network, evaluation: Evaluation) -> dict[str, float]:
        def distance(x: Tensor, y: Tensor) -> Tensor:
            return apart(judge.maps(x.float()), judge.maps(y.float()))

        return {f"lpips/{judge.name}": mean_over_pairs(evaluation, self.keys, distance), **judge.figures}


class Compression(Metric):
    """What the codes of images cost, in bits for each pixel (all bands of it together).

    A code with variance costs its rate KL(q ‖ N(0, I)), by bits-back coding. Codes from a codebook of K cost log₂ K
    per position at most, and the entropy of their shares once these are known.
    """

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `compression/values`, how many values of an image there are for each of a code, and the costs.

        Those are `compression/bits-per-pixel`, and with a codebook `compression/entropy-per-pixel` and
        `compression/usage`, the share of codes that occur. A code with neither variance nor codebook has no cost: NaN.
        """
        part = evaluation.system.autoencoder
        codebook = getattr(part, "codebook", None)
        found = codebook if isinstance(codebook, Codebook) else None
        counts = torch.zeros(found.size if found else 0, dtype=torch.float64)
        bits, pixels, values, numbers = 0.0, 0, 0, 0
        for batch in evaluation.real(evaluation.held_out, evaluation.count):
            image = batch["image"].to(evaluation.system.device)
            with torch.inference_mode():
                code = part.encode(image).unscaled(part.scale, part.shift)
                if found:
                    counts += torch.bincount(found.nearest(code.mode()).flatten().cpu(), minlength=found.size)
            bits += math.nan if code.logvar is None else float(code.kl().double().sum()) / math.log(2)
            pixels, values = pixels + image[:, 0].numel(), values + image.numel()
            numbers += code.mean.numel()
        figures = {"compression/values": values / numbers}
        if found is None:
            return figures | {"compression/bits-per-pixel": bits / pixels}
        p, area = counts / counts.sum(), part.stride**2
        entropy = float(-torch.xlogy(p, p).sum()) / math.log(2)
        return figures | {
            "compression/bits-per-pixel": found.bits / area,
            "compression/entropy-per-pixel": entropy / area,
            "compression/usage": float((counts > 0).double().mean()),
        }


@runtime_checkable
class Evident(Protocol):
    """A task that can say how likely images are from draws of a posterior."""

    def evidence(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return `distortion`, `rate` and `log_weight` of each item, (B,), from one draw."""


class Evidence(Metric):
    """The variational bound on ln p(x) in nats, its two parts, and how many latent units are in use.

    With several draws the bound is importance-weighted, ln (1/K) Σ p(x, z_k)/q(z_k|x), which never falls with K in
    the mean (Burda et al. 2016). A unit is active where its mean varies over the data by more than 0.01.

    Args:
        draws: K.
    """

    def __init__(self, *, draws: Annotated[int, Field(gt=0)] = 1) -> None:
        self.draws = draws

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return `elbo/bound`, `elbo/rate`, `elbo/distortion` and `elbo/active-units`.

        Raises:
            IncompatibleParts: The task does not train an autoencoder.
        """
        system, task = evaluation.system, evaluation.system.task
        if not isinstance(task, Evident):
            raise IncompatibleParts(
                "the task has no bound from a posterior",
                where=f"the task {type(task).__name__}",
                expected="`autoencode`",
                remedy="leave out the metric `elbo`",
            )
        bounds, rates, costs, means, seen = [], [], [], [], 0
        for batch in evaluation.real(evaluation.held_out, evaluation.count):
            moved = to_device(batch, system.device)
            with torch.inference_mode():
                found = [task.evidence(system, moved, _noise(evaluation, batch, k, seen)) for k in range(self.draws)]
                means.append(system.autoencoder.encode(moved["image"]).mode().flatten(1).double().cpu())
            weights = torch.stack([each["log_weight"].double().cpu() for each in found])
            bounds.append(weights.logsumexp(0) - math.log(self.draws))
            seen += len(batch["image"])
            rates.append(found[0]["rate"].double().cpu())
            costs.append(torch.stack([each["distortion"].double().cpu() for each in found]).mean(0))
        spread = torch.cat(means).var(0, correction=0)
        return {
            "elbo/bound": float(torch.cat(bounds).mean()),
            "elbo/rate": float(torch.cat(rates).mean()),
            "elbo/distortion": float(torch.cat(costs).mean()),
            "elbo/active-units": float((spread > _ACTIVE).sum()),
        }


def _noise(evaluation: Evaluation, batch: Batch, draw: int, first: int) -> Noise:
    return Noise(mix("elbo", evaluation.seed, draw, first + i) for i in range(len(batch["image"])))
