"""Wiring: which argument of a diffusers network hears which port, read from its signature and its config."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffloom.condition import Condition, Ports
from diffloom.errors import IncompatibleParts
from diffloom_diffusers import labels

_SAMPLES = ("sample", "hidden_states")
_CONTEXT = "encoder_hidden_states"
_MASK = "encoder_attention_mask"
_LABELS = "class_labels"
_POOLED = "pooled_projections"
_CONTEXT_WIDTHS = ("encoder_hid_dim", "caption_channels", "joint_attention_dim", "cross_attention_dim")


@dataclass(frozen=True)
class Wiring:
    """How a network is called.

    Attributes:
        sample: The argument that takes x_t.
        context: Width of its cross-attention, 0 where it has none.
        masked: Whether it takes a mask of the context.
        told: The argument that takes the vector, if one does.
        vector: Width of the vector, 0 where nothing takes one.
        null_class: The weight of `vector` that stands for no class, if one does.
        single: Whether the vector is one number, which is passed as such.
        concat: Channels beside x_t.
    """

    sample: str
    context: int
    masked: bool
    told: str | None
    vector: int
    null_class: int | None
    single: bool
    concat: int

    @classmethod
    def of(cls, network: Any, channels: int, where: str) -> "Wiring":
        """Return the wiring of a network, whose class tables are made to hear vectors.

        Args:
            network: One of diffusers' models.
            channels: Of what is denoised.
            where: What an error is about.

        Raises:
            IncompatibleParts: Where it must be told what no port can say, or takes fewer channels.
        """
        config, taken = dict(network.config), inspect.signature(network.forward).parameters
        sample = next((name for name in _SAMPLES if name in taken), None)
        if sample is None or "timestep" not in taken:
            raise _alien(network, where, f"arguments {', '.join(taken)}")
        if config.get("addition_embed_type") is not None:
            raise _alien(network, where, f"addition_embed_type {config['addition_embed_type']}")
        known = {sample, "timestep", _CONTEXT, _MASK, _LABELS, _POOLED}
        demanded = [name for name, parameter in taken.items() if parameter.default is parameter.empty]
        odd = [name for name in demanded if name not in known and taken[name].kind is not inspect.Parameter.VAR_KEYWORD]
        if odd:
            raise _alien(network, where, f"the arguments {', '.join(odd)}")
        concat = int(config.get("in_channels") or channels) - channels
        if concat < 0:
            raise IncompatibleParts(
                "the network takes fewer channels than what is diffused has",
                where=where,
                expected=f"{channels} channels, or more where something is told beside x_t",
                got=f"in_channels {config['in_channels']}",
                remedy="change the data's channels, the autoencoder, or the network",
            )
        told, vector, null_class = _vector(network, config, set(taken))
        context = _context(config, where) if _CONTEXT in taken else 0
        single = told == _LABELS and config.get("class_embed_type") == "timestep"
        return cls(sample, context, _MASK in taken, told, vector, null_class, single, concat)

    def ports(self, taps: Mapping[str, int]) -> Ports:
        """Return the ports, every tap being open to edits."""
        return Ports(context=self.context, vector=self.vector, concat=self.concat, affine=taps)

    def arguments(self, x_t: Tensor, t: Tensor, condition: Condition) -> dict[str, Any]:
        """Return what the network is called with.

        Args:
            x_t: (B, C, *spatial).
            t: The network's own time, (B,).
            condition: What it is told.

        Raises:
            IncompatibleParts: Where the condition does not fit.
        """
        self._check(condition)
        x = x_t if condition.concat is None else torch.cat([x_t, condition.concat.to(x_t.dtype)], 1)
        given: dict[str, Any] = {self.sample: x, "timestep": t}
        if self.context:
            given[_CONTEXT] = condition.context.to(x_t.dtype) if condition.context is not None else None
            if condition.context_mask is not None and self.masked:
                given[_MASK] = condition.context_mask
        if self.told is not None:
            vector = condition.vector
            if vector is None:
                vector = labels.nobody(x_t.shape[0], self.vector, self.null_class, x_t)
            given[self.told] = vector[:, 0] if self.single else vector.to(x_t.dtype)
        return given

    def _check(self, condition: Condition) -> None:
        for port, told, axis in (
            ("context", condition.context, -1),
            ("vector", condition.vector, -1),
            ("concat", condition.concat, 1),
        ):
            width, got = getattr(self, port), 0 if told is None else told.shape[axis]
            silent = told is None and (port == "vector" or not width)
            if got != width and not silent:
                raise IncompatibleParts(
                    f"the {port} port does not fit",
                    where="denoiser",
                    expected=f"width {width}" if width else "nothing: the network has no such port",
                    got=f"width {got}" if got else "nothing",
                )
        if condition.context_mask is not None and self.context and not self.masked:
            raise IncompatibleParts("the network takes no mask of its context", where="denoiser")


def _vector(network: Any, config: Mapping[str, Any], taken: set[str]) -> tuple[str | None, int, int | None]:
    """Return the argument that takes the vector, its width, and the place in it that stands for no class."""
    if _POOLED in taken and config.get("pooled_projection_dim"):
        return _POOLED, int(config["pooled_projection_dim"]), None
    if _LABELS not in taken:
        return None, 0, None
    rows, null_class = labels.soften(network)
    if rows:
        return _LABELS, rows, null_class
    kind = config.get("class_embed_type")
    if kind == "timestep":
        return _LABELS, 1, None
    if kind == "identity":
        return _LABELS, int(network.time_embedding.linear_2.out_features), None
    if kind is not None:
        return _LABELS, int(config["projection_class_embeddings_input_dim"]), None
    return None, 0, None


def _context(config: Mapping[str, Any], where: str) -> int:
    width = next((config[name] for name in _CONTEXT_WIDTHS if config.get(name)), 0)
    widths = set(width) if isinstance(width, list | tuple) else {width}
    if len(widths) > 1:
        raise IncompatibleParts(
            "the network's levels listen to contexts of different widths",
            where=where,
            expected="one width",
            got=", ".join(map(str, sorted(widths))),
        )
    return int(widths.pop())


def _alien(network: Any, where: str, asks: str) -> IncompatibleParts:
    return IncompatibleParts(
        f"{type(network).__name__} must be told what no port of a denoiser can say",
        where=where,
        expected="x_t, a time, and at most a context, a vector and channels beside x_t",
        got=asks,
    )
