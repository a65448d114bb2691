"""What a tokenizer is made of, and the manifest that says what made it."""

from operator import not_
from typing import Literal

from pydantic import Field, PositiveInt

from trainer.contracts.base import FileRecord, Frozen, Sha256, Timestamp

TokenizerMethod = Literal["char"]
METHODS: tuple[TokenizerMethod, ...] = ("char",)


MASK_NAMES = ("[MASK]", "<mask>")


class Normalization(Frozen):
    """What is done to every text before it is encoded, in training and at inference alike."""

    form: Literal["NFC"] = "NFC"
    lowercase: bool = False


class CharTokenizerConfig(Frozen):
    """One token per Unicode code point of the training split; specials [PAD] [UNK] [BOS] [EOS] = 0..3."""

    method: Literal["char"] = "char"
    vocab_size: PositiveInt | None = None
    """A cap by frequency, specials included; None keeps every character."""
    min_frequency: PositiveInt = 1
    mask_token: bool = Field(False, exclude_if=not_)  # absent from what older versions wrote, and from its hash
    """Whether [MASK] = 4 stands before the characters, which masked_lm needs."""
    normalization: Normalization = Normalization()


TokenizerConfig = CharTokenizerConfig
"""The union of all tokenizers' configs, by `method`; one member to begin with."""


class TokenizerStats(Frozen):
    """How well the vocabulary fits lines that it was not made from."""

    coverage: float
    """Share of the hold-out's tokens that are known."""
    oov_rate: float
    """Share of the hold-out's tokens that are unknown: 1 - coverage."""
    token_count: int
    char_coverage: float
    """Share of the hold-out's distinct characters that the vocabulary holds."""
    avg_tokens_per_char: float
    avg_tokens_per_word: float
    holdout_lines: int


class TokenizerCorpus(Frozen):
    """A text that the vocabulary was made from."""

    name: str
    sha256: Sha256
    lines: int
    chars: int


class TokenizerManifest(Frozen):
    """What made a tokenizer, and what is known of it."""

    schema_version: Literal[1] = 1
    tokenizer_id: str
    method: TokenizerMethod
    vocab_size: int
    special_tokens: dict[str, int]
    normalization: Normalization
    corpus: tuple[TokenizerCorpus, ...]
    config: TokenizerConfig
    stats: TokenizerStats
    seed: int
    holdout_fraction: float
    versions: dict[str, str]
    created_at: Timestamp
    files: tuple[FileRecord, ...]

    @property
    def mask_id(self) -> int | None:
        """What stands for a gap; None where the tokenizer was not made for masked_lm."""
        return next((self.special_tokens[name] for name in MASK_NAMES if name in self.special_tokens), None)
