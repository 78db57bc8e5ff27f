"""ClipText: a caption for cross-attention, by CLIP's text network (Stable Diffusion; Radford et al. 2021).

The context is the last hidden state after the last norm: 77 × 768 in Stable Diffusion 1.x, and 77 × 1024 in 2.x,
whose published folder has the network without its last layer. Padding is looked at like the rest.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import DataError, DiffloomError, IncompatibleParts
from diffloom.layout import Layout, Weld
from diffloom.paths import existing_folder
from diffloom.recipe.weights import fit
from diffloom.stored import stored
from diffloom.vision_compat import ensure_torchvision

_ROOT = "text_model."
_WHERE = "clip-text"


class ClipText(Conditioner):
    """CLIP's text network from a folder in the layout of transformers. Nothing said is the empty caption.

    Its weights are read when it is built, unless only shapes are asked for; `freeze: true` keeps them, as Stable
    Diffusion does.

    Args:
        folder: With `config.json` and the weights in safetensors; `~` and environment variables are replaced.
        tokenizer: With `vocab.json` and `merges.txt`, or `tokenizer.json`; by default `folder` itself where it has
            them, else the folder `tokenizer` beside it, as in a pipeline of diffusers.
        key: Where a batch has the captions.
        denoiser: Whose context port is filled.

    Raises:
        IncompatibleParts: The denoiser's context has another width.
        CheckpointError: The weights are missing, or of another network.
    """

    @staticmethod
    def examples(folder: Path) -> tuple[dict[str, object], ...]:
        """Return a network of random weights, small enough for a test."""
        small_clip(folder, width=8)
        return ({"folder": str(folder)},)

    def __init__(self, *, folder: str, tokenizer: str | None = None, key: str = "caption", denoiser: Denoiser) -> None:
        super().__init__()
        library = transformers()
        found = existing_folder(folder, where=_WHERE)
        words = _words(found) if tokenizer is None else existing_folder(tokenizer, where=_WHERE)
        config = library.CLIPTextConfig.from_pretrained(str(found))
        if config.hidden_size != denoiser.ports.context:
            raise IncompatibleParts(
                "the text network does not fit the denoiser",
                where=_WHERE,
                expected=f"a context of width {denoiser.ports.context}",
                got=str(config.hidden_size),
                remedy=f"set the denoiser's `context` to {config.hidden_size}",
            )
        self.key, self.length = key, config.max_position_embeddings
        self.needs = (key,)
        self.gives = Ports(context=config.hidden_size)
        self.tokenizer: Any = library.CLIPTokenizer.from_pretrained(str(words))
        self.model: Any = library.CLIPTextModel(config)
        if next(self.model.parameters()).device.type != "meta":
            source = stored(found)
            self.load_state_dict(fit(self, source.shapes, f"{_WHERE} ({found})")(source.read()))

    def encode(self, batch: Batch) -> Condition:
        """Return the context (B, length, width).

        Args:
            batch: With the captions, a list of B texts.

        Raises:
            DataError: They are no texts.
        """
        texts = list(batch[self.key])
        odd = [text for text in texts if not isinstance(text, str)]
        if odd:
            raise DataError("a caption is no text", where=self.key, expected="texts", got=repr(odd[0]))
        return Condition(context=self._said(texts))

    def null(self, code: Condition) -> Condition:
        """Return the context of the empty caption."""
        count = 0 if code.context is None else code.context.shape[0]
        return Condition(context=self._said([""]).expand(count, -1, -1))

    def layouts(self) -> Sequence[Layout]:
        """Return the layout of transformers, and that of latent diffusion's single files."""
        names = list(self.state_dict())
        welds = tuple(Weld(name, (re.sub(rf"^model\.({re.escape(_ROOT)})?", "", name),)) for name in names)
        known: dict[str, Any] = {"aliases": ((rf"^{re.escape(_ROOT)}", ""),), "ignored": (r"position_ids$",)}
        return (
            Layout("transformers", welds, config=self.model.config.to_dict(), **known),
            Layout("ldm", welds, prefix="cond_stage_model.transformer.", **known),
        )

    def _said(self, texts: list[str]) -> Tensor:
        device = next(self.model.parameters()).device
        told = self.tokenizer(texts, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt")
        state: Tensor = self.model(told["input_ids"].to(device, non_blocking=True)).last_hidden_state
        return state


def _words(folder: Path) -> Path:
    """Return the folder with the tokenizer of the network in `folder`."""
    for place in (folder, folder.parent / "tokenizer"):
        if (place / "vocab.json").is_file() or (place / "tokenizer.json").is_file():
            return place
    raise DataError(
        "there is no tokenizer",
        where=f"{_WHERE} ({folder})",
        expected="vocab.json and merges.txt, or tokenizer.json, here or in a folder `tokenizer` beside it",
        remedy="name its folder as `tokenizer`",
    )


def transformers(where: str = _WHERE) -> Any:
    """Return the library; DiffloomError about `where` if it is not installed."""
    ensure_torchvision()  # transformers imports it where it is installed, in good order or not
    try:
        import transformers
    except ImportError as error:
        raise DiffloomError(
            "CLIP's networks come from a library that is not installed",
            where=where,
            expected="transformers",
            remedy="pip install 'diffloom[text]'",
        ) from error
    return transformers


def small_clip(folder: Path, *, width: int, layers: int = 1, length: int = 12) -> None:
    """Write a text network of random weights and a tokenizer of single letters to a folder, for tests.

    Args:
        folder: Where; it exists.
        width: Of the context.
        layers: How many.
        length: Tokens of a caption.
    """
    import json

    library = transformers()
    letters = sorted(map(chr, range(ord("a"), ord("z") + 1)))
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    config = library.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=length,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        library.CLIPTextModel(config).save_pretrained(str(folder))
