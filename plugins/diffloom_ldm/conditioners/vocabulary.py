"""Vocabulary: texts ↦ token numbers, by byte-pair encoding (Sennrich et al. 2016, on bytes).

Law: tokens 0, 1, 2 are padding, start and end; 3 … 258 the bytes; token 259 + k is the pair of tokens that merge k
joins. The merges are therefore all that has to be kept: one integer tensor, beside the weights that were trained
with it. Any text can be written, as any byte is a token.
"""

import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from diffloom.errors import DiffloomError

PAD, START, END = range(3)
_FIRST_BYTE, _BYTES = 3, 256
SMALLEST = _FIRST_BYTE + _BYTES
"""Tokens of a vocabulary without merges."""


def learned_merges(texts: Iterable[str], size: int) -> Tensor:
    """Return the merges (size − 259, 2) int64 that shorten texts most, rows of −1 where texts give fewer.

    Args:
        texts: What to learn from.
        size: Tokens of the vocabulary, 259 or more.
    """
    library = tokenizers()
    letters = _letters()
    pairs = library.Tokenizer(library.models.BPE())
    pairs.normalizer = library.normalizers.Lowercase()
    pairs.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(vocab_size=size - _FIRST_BYTE, initial_alphabet=letters, show_progress=False)
    pairs.train_from_iterator(texts, trainer)
    numbers = {letter: _FIRST_BYTE + place for place, letter in enumerate(letters)}
    rows: list[tuple[int, int]] = []
    for pair in json.loads(pairs.to_str())["model"]["merges"]:
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        if left + right not in numbers:
            numbers[left + right] = SMALLEST + len(rows)
            rows.append((numbers[left], numbers[right]))
    merges = torch.full((size - SMALLEST, 2), -1, dtype=torch.int64, device="cpu")
    if rows:
        merges[: len(rows)] = torch.tensor(rows, device="cpu")[: len(merges)]
    return merges


class Vocabulary:
    """Token numbers of texts.

    Args:
        merges: (n, 2), as `learned_merges` gives them.
    """

    def __init__(self, merges: Tensor) -> None:
        library = tokenizers()
        words = ["<pad>", "<start>", "<end>", *_letters()]
        joined = []
        for left, right in merges.tolist():
            if left >= 0:
                joined.append((words[left], words[right]))
                words.append(words[left] + words[right])
        numbers = {word: number for number, word in enumerate(words)}
        self._pairs = library.Tokenizer(library.models.BPE(vocab=numbers, merges=joined))
        self._pairs.normalizer = library.normalizers.Lowercase()
        self._pairs.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._pairs.decoder = library.decoders.ByteLevel()

    def __call__(self, texts: list[str], length: int) -> Tensor:
        """Return (len(texts), length) int64: start, the text, end, padding; a text too long is cut before its end."""
        rows = []
        for found in self._pairs.encode_batch(texts):
            inside = found.ids[: length - 2]
            rows.append([START, *inside, END] + [PAD] * (length - 2 - len(inside)))
        return torch.tensor(rows, dtype=torch.int64, device="cpu")

    def text(self, numbers: Iterable[int]) -> str:
        """Return the text of token numbers, in lower case."""
        inside = [int(number) for number in numbers if int(number) >= _FIRST_BYTE]
        return str(self._pairs.decode(inside))


def _letters() -> list[str]:
    """Return the letters that stand for the 256 bytes, in an order that never changes."""
    return sorted(tokenizers().pre_tokenizers.ByteLevel.alphabet())


def tokenizers() -> Any:
    """Return the library; DiffloomError where it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise DiffloomError(
            "texts are cut into tokens by a library that is not installed",
            where="the conditioner text",
            expected="tokenizers",
            remedy="pip install 'diffloom[text]'",
        ) from error
    return tokenizers
