"""A small classifier, trained once on a run's own labelled data: a judge of the domain, as Inception is not.

Law: it is a function of the data it was trained on and of nothing else: not of their order, not of a seed.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from diffloom.conditioner import Batch
from diffloom.noise import mix

_logger = logging.getLogger(__name__)
_VERSION = 1  # of the network and its training: another one makes kept classifiers stale
_LARGEST_SIDE = 64
_WIDTHS = (24, 32, 64, 64)
_STEPS, _BATCH, _RATE, _DECAY = 250, 64, 6e-3, 1e-2
_SEED = 0


@dataclass(frozen=True)
class Labelled:
    """Images with labels, in an order that depends on them alone.

    Attributes:
        images: (N, C, S, S') in [−1, 1], sides of at most 64.
        labels: (N,) int64.
        keys: One hash for each item.
    """

    images: Tensor
    labels: Tensor
    keys: tuple[str, ...]

    @classmethod
    def collect(cls, batches: Iterable[Batch]) -> "Labelled":
        """Return the items of `batches`, which have `image` and `label`."""
        images, labels, keys = [], [], []
        for batch in batches:
            small = shrink(batch["image"].float()).cpu()
            images.append(small)
            labels.append(batch["label"].cpu())
            keys += [_hash(x, int(y)) for x, y in zip(small, batch["label"], strict=True)]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return cls(torch.cat(images)[order], torch.cat(labels)[order], tuple(keys[i] for i in order))

    def divided(self) -> tuple["Labelled", "Labelled"]:
        """Return four fifths to train on and one fifth to test on, chosen by the items' hashes."""
        test = [mix("classifier", key) % 5 == 0 for key in self.keys]
        return self._those([not t for t in test]), self._those(test)

    def _those(self, wanted: list[bool]) -> "Labelled":
        mask = torch.tensor(wanted)
        keys = tuple(key for key, want in zip(self.keys, wanted, strict=True) if want)
        return Labelled(self.images[mask], self.labels[mask], keys)


class Classifier(nn.Module):
    """A convolutional network: a stem, three further layers, global average pooling, a linear head.

    Args:
        channels: Channels of the images.
        side: Their larger side, after shrinking: sets by how much the network reduces them.
        classes: How many classes.
    """

    def __init__(self, *, channels: int, side: int, classes: int) -> None:
        super().__init__()
        stride = 2 if side > 32 else 1
        halvings = (side // stride // 4).bit_length() - 1
        layers: list[nn.Module] = []
        before = channels
        for place, width in enumerate(_WIDTHS):
            kernel, step = (2 * stride + 1, stride) if place == 0 else (3, 1)
            layers.append(nn.Conv2d(before, width, kernel, step, padding=kernel // 2, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            if place < halvings:
                layers.append(nn.MaxPool2d(2))
            before = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the pooled features (N, 64) of images (N, C, H, W) in [−1, 1]."""
        found: Tensor = self.body(shrink(images)).mean(dim=(-2, -1))
        return found

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps (N, c, h, w) after each activation, for images (N, C, H, W) in [−1, 1]."""
        found, h = [], shrink(images)
        for layer in self.body:
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                found.append(h)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [−1, 1]."""
        logits: Tensor = self.head(self.features(images))
        return logits


@dataclass(frozen=True)
class Trained:
    """A trained classifier.

    Attributes:
        network: In evaluation mode.
        accuracy: Share of `tested` images that it had not seen and recognises.
        tested: How many those are.
        channels: Channels of the images that it takes.
        digest: Names the data it was trained on and judged with.
    """

    network: Classifier
    accuracy: float
    tested: int
    channels: int
    digest: str


def train_or_load(train: Labelled, test: Labelled, classes: int, cache: Path, device: torch.device) -> Trained:
    """Return the classifier of these data: the one kept in `cache`, or a new one, which is then kept there.

    Args:
        train: What to learn.
        test: What to judge the classifier with.
        classes: How many classes.
        cache: A folder; made where it does not exist.
        device: Where to compute.
    """
    digest = hashlib.sha256(repr((_VERSION, classes, train.keys, test.keys)).encode()).hexdigest()
    file = cache / f"classifier-{digest[:16]}"
    network = _new(train, classes)
    accuracy = load_kept(network, file, digest, "accuracy")
    if accuracy is None:
        _logger.info("training a classifier on %d images of %d classes", len(train.keys), classes)
        _fit(network, train, device)
        accuracy = _accuracy(network, test, device)
        keep(network, file, {"digest": digest, "accuracy": accuracy, "tested": len(test.keys)})
    _logger.info("the classifier recognises %.1f %% of %d held-out images", 100 * accuracy, len(test.keys))
    network = network.to(device).eval().requires_grad_(False)
    return Trained(network, accuracy, len(test.keys), train.images.shape[1], digest)


def shrink(images: Tensor) -> Tensor:
    """Return `images` (N, C, H, W) with sides of at most 64, averaged."""
    height, width = images.shape[-2:]
    scale = _LARGEST_SIDE / max(height, width)
    if scale >= 1:
        return images
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return functional.interpolate(images, size=size, mode="bilinear", antialias=True)


def _new(data: Labelled, classes: int) -> Classifier:
    """Return a network with the same first weights whoever asks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return Classifier(channels=data.images.shape[1], side=max(data.images.shape[-2:]), classes=classes)


def _fit(network: Classifier, data: Labelled, device: torch.device) -> None:
    """Train with AdamW, one cycle of the learning rate, images shifted by up to an eighth of their sides."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has no stub for it
    images = data.images.to(device, memory_format=torch.channels_last)
    labels = data.labels.to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_RATE, total_steps=_STEPS)
    generator = torch.Generator().manual_seed(_SEED)
    network.train()
    with torch.enable_grad():
        for rows in rows_of(len(labels), _BATCH, _STEPS, generator):
            logits = network(_shifted(images[rows], generator))
            loss = functional.cross_entropy(logits, labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation for it
            optimiser.step()
            cycle.step()
    network.eval()


def rows_of(count: int, batch: int, steps: int, generator: torch.Generator) -> Iterable[Tensor]:
    """Yield the rows of every step's batch: permutations of `count` rows, one after the other."""
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return a batch shifted as one, its borders repeated."""
    height, width = images.shape[-2:]
    down, right = max(1, height // 8), max(1, width // 8)
    top = int(torch.randint(2 * down + 1, (), generator=generator))
    left = int(torch.randint(2 * right + 1, (), generator=generator))
    padded = functional.pad(images, (right, right, down, down), mode="replicate")
    return padded[..., top : top + height, left : left + width]


def _accuracy(network: Classifier, data: Labelled, device: torch.device) -> float:
    """Return the share recognised; NaN where there is nothing to judge with."""
    count, hits = len(data.keys), 0
    with torch.inference_mode():
        for start in range(0, count, 256):
            part = slice(start, start + 256)
            found = network(data.images[part].to(device)).argmax(dim=1).cpu()
            hits += int((found == data.labels[part]).sum())
    return hits / count if count else float("nan")


def load_kept(network: nn.Module, file: Path, digest: str, figure: str) -> float | None:
    """Load kept weights and return a figure noted with them; `None` where there are no good ones of that digest."""
    try:
        noted = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        if noted["digest"] != digest:
            return None
        network.load_state_dict(load_file(file.with_suffix(".safetensors")))
        return float(noted[figure])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        _logger.warning("the kept network %s cannot be used and is made anew: %s", file, error)
        return None


def keep(network: nn.Module, file: Path, noted: dict[str, object]) -> None:
    """Keep weights, then the note that makes them valid, each written whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, part)
    part.replace(file.with_suffix(".safetensors"))
    part.write_text(json.dumps(noted, indent=2), encoding="utf-8")
    part.replace(file.with_suffix(".json"))


def _hash(image: Tensor, label: int) -> str:
    content = image.contiguous().numpy().tobytes() + f"{tuple(image.shape)} {label}".encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
