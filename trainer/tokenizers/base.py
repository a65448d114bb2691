"""What the rest of the program asks of a tokenizer, whatever its method."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizers import Normalization, TokenizerManifest

PAD, UNK, BOS, EOS = range(4)
SPECIAL_TOKENS = {"[PAD]": PAD, "[UNK]": UNK, "[BOS]": BOS, "[EOS]": EOS}


class Vocabulary(NamedTuple):
    """How many tokens there are, and the ids of those that stand for no text."""

    size: int
    pad: int = PAD
    unk: int = UNK
    bos: int = BOS
    eos: int = EOS
    mask: int | None = None

    @property
    def special_ids(self) -> list[int]:
        found = (self.pad, self.unk, self.bos, self.eos, self.mask)
        return sorted({token_id for token_id in found if token_id is not None})


Span = tuple[int, int]
"""A half-open range of characters."""
Ids: TypeAlias = "NDArray[np.uint8 | np.uint16 | np.uint32]"
"""Token ids in the smallest of the three types that holds the vocabulary."""


class Text(NamedTuple):
    """Lines that a vocabulary is made from, and the corpus that they are of."""

    corpus: CorpusRef
    lines: Iterable[str]


class Tokenizer(Protocol):
    """Text to ids and back; every text is normalized before it is encoded.

    A text has no special tokens: `[BOS]` written in it is five characters, and newlines belong to no document.
    """

    @property
    def manifest(self) -> TokenizerManifest: ...
    @property
    def normalization(self) -> Normalization: ...
    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_documents(self, lines: Sequence[str]) -> Ids:
        """Return [BOS] line [EOS] of each normalized line in one array."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the ids; special tokens and ids outside the vocabulary have none."""
        ...

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return each token as people see it; special tokens by their names."""
        ...

    def spans(self, text: str) -> list[Span]:
        """Return for each token of the text its range in the normalized text."""
        ...

    def save(self, folder: Path) -> None: ...


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary(tokenizer.vocab_size, mask=tokenizer.manifest.mask_id)


def ids_type(vocab_size: int) -> type[np.uint8] | type[np.uint16] | type[np.uint32]:
    """Return the smallest type that holds every id of the vocabulary."""
    if vocab_size <= 1 << 8:
        return np.uint8
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32
