"""A small segmenter, trained once on a run's own images and masks: it finds in images what a mask would say of them.

Law: as the classifier, it is a function of the data it was trained on and of nothing else.
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffloom.conditioner import Batch
from diffloom_metrics.classifier import keep, load_kept, rows_of, shrink

_logger = logging.getLogger(__name__)
_VERSION = 1  # of the network and its training: another one makes kept segmenters stale
_WIDTHS = (24, 48, 64)
_STEPS, _BATCH, _RATE, _DECAY = 300, 32, 6e-3, 1e-2
_SEED = 0
IGNORED = -1


@dataclass(frozen=True)
class Masked:
    """Images with masks, in an order that depends on them alone.

    Attributes:
        images: (N, C, S, S') in [−1, 1], sides of at most 64.
        masks: (N, S, S') int64; −1 where a pixel does not count.
        keys: One hash for each item.
    """

    images: Tensor
    masks: Tensor
    keys: tuple[str, ...]

    @classmethod
    def collect(cls, batches: Iterable[Batch], key: str, ignore: tuple[int, ...]) -> "Masked":
        """Return the items of `batches`, which have `image` and, under `key`, a mask of class numbers."""
        pairs = [(shrink(batch["image"].float()).cpu(), small_masks(batch, key, ignore)) for batch in batches]
        images, masks = torch.cat([x for x, _ in pairs]), torch.cat([m for _, m in pairs])
        keys = [_hash(x, m) for x, m in zip(images, masks, strict=True)]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return cls(images[order], masks[order], tuple(keys[i] for i in order))


class Segmenter(nn.Module):
    """A U-Net of three levels with batch normalisation.

    Args:
        channels: Of the images.
        classes: How many classes.
    """

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        fine, middle, coarse = _WIDTHS
        self.first, self.second, self.third = _block(channels, fine), _block(fine, middle), _block(middle, coarse)
        self.fourth, self.fifth = _block(coarse + middle, middle), _block(middle + fine, fine)
        self.head = nn.Conv2d(fine, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K, S, S') of images (N, C, S, S') in [−1, 1], sides of at most 64."""
        fine = self.first(images)
        middle = self.second(functional.max_pool2d(fine, 2))
        coarse = self.third(functional.max_pool2d(middle, 2))
        middle = self.fourth(torch.cat([_as_large(coarse, middle), middle], 1))
        fine = self.fifth(torch.cat([_as_large(middle, fine), fine], 1))
        return cast(Tensor, self.head(fine))


@dataclass(frozen=True)
class Confusion:
    """How often a pixel of class i was taken for class j, over a whole set.

    Attributes:
        counts: (K, K) int64, i the row.
    """

    counts: Tensor

    @classmethod
    def of(cls, found: Tensor, true: Tensor, classes: int) -> "Confusion":
        """Return that of maps of class numbers, any shape; pixels whose true class is −1 are left out."""
        counted = true != IGNORED
        places = true[counted] * classes + found[counted]
        return cls(torch.bincount(places, minlength=classes**2).view(classes, classes))

    def __add__(self, other: "Confusion") -> "Confusion":
        """Return that of both sets together."""
        return Confusion(self.counts + other.counts)

    def iou(self) -> float:
        """Return the mean of TP / (TP + FP + FN) over the classes that occur in either map; NaN for none."""
        hits = self.counts.diagonal().double()
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        return float((hits / union)[union > 0].mean())

    def accuracy(self) -> float:
        """Return the share of pixels that are right."""
        return float(self.counts.diagonal().sum() / self.counts.sum())


def small_masks(batch: Batch, key: str, ignore: tuple[int, ...]) -> Tensor:
    """Return the masks of a batch in the size in which the segmenter sees images, (N, S, S') int64, −1 to ignore."""
    mask = batch[key].cpu().view(len(batch[key]), 1, *batch[key].shape[-2:]).float()
    size = shrink(batch["image"][:1].float()).shape[-2:]
    small = functional.interpolate(mask, size=size, mode="nearest-exact")[:, 0].round().long()
    for number in ignore:
        small = small.masked_fill(small == number, IGNORED)
    return small


def found_masks(network: Segmenter, images: Tensor) -> Tensor:
    """Return the likeliest class of every pixel, (N, S, S') int64 on the CPU, for images (N, C, H, W) in [−1, 1]."""
    device = network.head.weight.device
    with torch.inference_mode():
        return cast(Tensor, network(shrink(images.float().clamp(-1, 1).to(device)))).argmax(1).cpu()


def train_or_load(
    train: Masked, test: Masked, classes: int, cache: Path, device: torch.device
) -> tuple[Segmenter, float]:
    """Return the segmenter of these data and its IoU on `test`: the one kept in `cache`, or a new one, kept there."""
    digest = hashlib.sha256(repr((_VERSION, classes, train.keys, test.keys)).encode()).hexdigest()
    file = cache / f"segmenter-{digest[:16]}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = Segmenter(channels=train.images.shape[1], classes=classes)
    iou = load_kept(network, file, digest, "iou")
    if iou is None:
        _logger.info("training a segmenter on %d images of %d classes", len(train.keys), classes)
        _fit(network, train, device)
        iou = confusion(network, test, classes).iou()
        keep(network, file, {"digest": digest, "iou": iou, "tested": len(test.keys)})
    _logger.info("the segmenter's IoU is %.3f on %d held-out images", iou, len(test.keys))
    return network.to(device).eval().requires_grad_(False), iou


def confusion(network: Segmenter, data: Masked, classes: int) -> Confusion:
    """Return what a segmenter in evaluation mode takes for what."""
    found = [found_masks(network, part) for part in torch.split(data.images, 64)]
    return Confusion.of(torch.cat(found), data.masks, classes)


def _fit(network: Segmenter, data: Masked, device: torch.device) -> None:
    """Train with AdamW, one cycle of the learning rate, each batch turned and mirrored as one."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has no stub for it
    images, masks = data.images.to(device), data.masks.to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_RATE, total_steps=_STEPS)
    generator = torch.Generator().manual_seed(_SEED)
    network.train()
    with torch.enable_grad():
        for rows in rows_of(len(masks), _BATCH, _STEPS, generator):
            turns = int(torch.randint(8, (), generator=generator))
            logits = network(_turned(images[rows], turns).contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, _turned(masks[rows], turns), ignore_index=IGNORED)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation for it
            optimiser.step()
            cycle.step()
    network.eval()


def _turned(x: Tensor, turns: int) -> Tensor:
    """Return one of the eight ways to lay a square; of others, one of the two without a turn."""
    mirrored = x.flip(-1) if turns >= 4 else x
    return torch.rot90(mirrored, turns % 4, (-2, -1)) if x.shape[-1] == x.shape[-2] else mirrored


def _block(before: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner in (before, width):
        layers += [nn.Conv2d(inner, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def _as_large(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[-2:], mode="nearest")


def _hash(image: Tensor, mask: Tensor) -> str:
    content = image.contiguous().numpy().tobytes() + mask.contiguous().numpy().tobytes() + repr(image.shape).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
