"""Text: a caption for cross-attention, by a transformer that is trained along with the denoiser.

As in latent diffusion's text-to-image model (Rombach et al. 2022, appendix E.2.1), whose transformer is
`Text(layers=32, vocabulary=30522)` for a context of 1280: 542,895,360 parameters.
"""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.data import Dataset
from diffloom.denoiser import Denoiser
from diffloom.errors import DataError
from diffloom_ldm.conditioners.encoder import TokenEncoder
from diffloom_ldm.conditioners.ports import context_width
from diffloom_ldm.conditioners.vocabulary import SMALLEST, Vocabulary, learned_merges

Count = Annotated[int, Field(gt=0)]


class Text(Conditioner):
    """Captions as tokens of a vocabulary that is learned from the data's captions and saved with the weights.

    Every caption takes `length` tokens, padding included, which is looked at like the rest. Nothing said is the
    empty caption.

    Args:
        vocabulary: Tokens; as many as the captions give rise to are used.
        length: Tokens of a caption, start and end included; a longer one is cut.
        layers: Of the transformer.
        heads: Of its attention.
        head_width: Channels of each head.
        key: Where a batch has the captions.
        denoiser: Whose context port is filled.
        dataset: The captions that the vocabulary is learned from; without it, it consists of bytes until weights
            are loaded.

    Raises:
        IncompatibleParts: The denoiser has no context port.
    """

    examples: ClassVar = ({"vocabulary": 300, "length": 12, "layers": 1, "heads": 2, "head_width": 4},)

    def __init__(
        self,
        *,
        vocabulary: Annotated[int, Field(ge=SMALLEST)] = 4096,
        length: Annotated[int, Field(gt=2)] = 77,
        layers: Count = 8,
        heads: Count = 8,
        head_width: Count = 64,
        key: str = "caption",
        denoiser: Denoiser,
        dataset: Dataset | None = None,
    ) -> None:
        super().__init__()
        width = context_width(denoiser, "text")
        self.length, self.key = length, key
        self.needs = (key,)
        self.gives = Ports(context=width)
        self.encoder = TokenEncoder(vocabulary, length, width, layers=layers, heads=heads, head_width=head_width)
        known = dataset is not None and key in dataset.keys
        texts = map(str, dataset.column(key)) if known and dataset is not None else ()
        self.merges: Tensor
        self.register_buffer("merges", learned_merges(texts, vocabulary))
        self._read: tuple[Any, Vocabulary] | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary, made anew where the merges have changed, as when weights are loaded."""
        state = (self.merges, self.merges._version)
        if self._read is None or self._read[0][0] is not state[0] or self._read[0][1] != state[1]:
            self._read = (state, Vocabulary(self.merges))
        return self._read[1]

    def encode(self, batch: Batch) -> Condition:
        """Return the context (B, length, width).

        Args:
            batch: With the captions, a list of B texts.

        Raises:
            DataError: They are no texts.
        """
        texts = batch[self.key]
        odd = [text for text in texts if not isinstance(text, str)]
        if odd:
            raise DataError("a caption is no text", where=self.key, expected="texts", got=repr(odd[0]))
        return Condition(context=self._said(list(texts)))

    def null(self, code: Condition) -> Condition:
        """Return the context of the empty caption."""
        count = 0 if code.context is None else code.context.shape[0]
        return Condition(context=self._said([""]).expand(count, -1, -1))

    def _said(self, texts: list[str]) -> Tensor:
        device = self.encoder.positions.device
        if device.type == "meta":
            numbers = torch.zeros(len(texts), self.length, dtype=torch.int64, device=device)
        else:
            numbers = self.vocabulary(texts, self.length).to(device, non_blocking=True)
        told: Tensor = self.encoder(numbers)
        return told
