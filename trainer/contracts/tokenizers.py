"""What a tokenizer is made of, and the manifest that says what made it."""

from collections.abc import Mapping
from operator import not_
from typing import Annotated, Literal, NamedTuple, TypeAlias, get_args

from pydantic import BeforeValidator, Field, PositiveInt

from trainer.contracts.base import FileRecord, Frozen, Sha256, Timestamp

TokenizerMethod = Literal["char", "word", "bpe", "wordpiece", "sentencepiece"]
METHODS: tuple[TokenizerMethod, ...] = get_args(TokenizerMethod)
SpecialStyle = Literal["gpt2", "gpt2_mask", "bert"]
SPECIAL_NAMES: dict[SpecialStyle, tuple[str, ...]] = {
    "gpt2": ("<s>", "</s>", "<unk>", "<pad>"),
    "gpt2_mask": ("<s>", "</s>", "<unk>", "<pad>", "<mask>"),
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
}
"""The special tokens of a subword tokenizer by the style of its model; their ids are their places."""
UNKNOWN_NAMES = ("[UNK]", "<unk>", "<UNK>")
_ROLES = {
    "bos": ("[BOS]", "<s>", "[CLS]"),
    "eos": ("[EOS]", "</s>", "[SEP]", "<eos>"),
    "unk": UNKNOWN_NAMES,
    "pad": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
}
"""What a special token is for, by its name."""


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


class WordTokenizerConfig(Frozen):
    """One token per word between white space, in the order of the text; specials <UNK> <eos> = 0, 1."""

    method: Literal["word"] = "word"
    vocab_size: PositiveInt | None = None
    """A cap by frequency, specials included; None keeps every word."""
    min_frequency: PositiveInt = 1
    normalization: Normalization = Normalization()


class BpeTokenizerConfig(Frozen):
    """Byte-pair encoding of characters: the most frequent pair becomes a token, until there are enough."""

    method: Literal["bpe"] = "bpe"
    vocab_size: PositiveInt = 8000
    """At most so many tokens, specials and characters included."""
    min_frequency: PositiveInt = 1
    """Of a pair that becomes a token; every character is one."""
    special_style: SpecialStyle | None = None
    normalization: Normalization = Normalization()


class WordPieceTokenizerConfig(Frozen):
    """WordPiece: of the tokens that begin what is left of a word, the longest; ## goes on with a word."""

    method: Literal["wordpiece"] = "wordpiece"
    vocab_size: PositiveInt = 8000
    """At most so many tokens, specials and characters (each with and without ##) included."""
    min_frequency: PositiveInt = 2
    """Of a pair that becomes a token; every character is one."""
    special_style: SpecialStyle | None = None
    normalization: Normalization = Normalization()


class SentencePieceTokenizerConfig(Frozen):
    """SentencePiece: the likeliest pieces under a unigram model, or pairs merged by frequency."""

    method: Literal["sentencepiece"] = "sentencepiece"
    model_type: Literal["unigram", "bpe"] = "unigram"
    vocab_size: PositiveInt = 8000
    """At most so many tokens, specials and characters included."""
    special_style: SpecialStyle | None = None
    normalization: Normalization = Normalization()


def style_of(config: BpeTokenizerConfig | WordPieceTokenizerConfig | SentencePieceTokenizerConfig) -> SpecialStyle:
    """The style of the special tokens: as given, or as a run's model has it, else that of the method."""
    return config.special_style or ("bert" if config.method == "wordpiece" else "gpt2")


def _char_by_default(config: object) -> object:
    """A config without a method is one of characters: it was the only one when older requests were stored."""
    if not isinstance(config, Mapping):
        return config
    fields: dict[str, object] = {"method": "char", **config}
    return fields


TokenizerConfig: TypeAlias = Annotated[
    CharTokenizerConfig
    | WordTokenizerConfig
    | BpeTokenizerConfig
    | WordPieceTokenizerConfig
    | SentencePieceTokenizerConfig,
    Field(discriminator="method"),
    BeforeValidator(_char_by_default),
]
"""The union of all tokenizers' configs, by `method`."""
CONFIGS: dict[str, type[TokenizerConfig]] = {
    "char": CharTokenizerConfig,
    "word": WordTokenizerConfig,
    "bpe": BpeTokenizerConfig,
    "wordpiece": WordPieceTokenizerConfig,
    "sentencepiece": SentencePieceTokenizerConfig,
}


def role_of(special_token: str) -> str:
    """Say what a special token is for: bos, eos, unk, pad or mask."""
    return next(role for role, names in _ROLES.items() if special_token in names)


class SpecialIds(NamedTuple):
    """The ids of the special tokens by what they are for; None where a tokenizer has no such token."""

    unk: int
    eos: int
    bos: int | None = None
    pad: int | None = None
    mask: int | None = None

    @property
    def start(self) -> int:
        """What a line is read from: BOS, or the EOS of the line before (DEC D50)."""
        return self.eos if self.bos is None else self.bos

    @property
    def filler(self) -> int:
        """What stands where a row has ended; no target whatever it is."""
        return self.eos if self.pad is None else self.pad

    @property
    def all(self) -> list[int]:
        return [i for i in self if i is not None]

    @property
    def never_sampled(self) -> list[int]:
        return [i for i in self.all if i != self.eos]


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
    def special_ids(self) -> SpecialIds:
        return SpecialIds(**{role_of(name): i for name, i in self.special_tokens.items()})
