"""What a tokenizer is made of, and the manifest that says what made it."""

import re
from typing import Annotated, Literal, NamedTuple, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from trainer.contracts.base import Count, FileRecord, Frozen, Sha256, Timestamp

TokenizerMethod = Literal["char", "word", "bpe", "wordpiece", "sentencepiece"]
METHODS: tuple[TokenizerMethod, ...] = get_args(TokenizerMethod)
VocabularySize = Annotated[int, Field(gt=0, le=1_000_000)]
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


def _special_name(name: str) -> str:
    """Such a name is cut apart where it stands in a text, so that no token of text can be spelled like it."""
    if (
        not re.fullmatch(r"<[/|]?[a-zA-Z0-9_.-]{1,60}\|?>|\[[a-zA-Z0-9_.-]{1,62}\]", name)
        or name.strip("<>[]/|_.-") == ""
    ):
        raise ValueError("must be letters (a-z, A-Z), digits, '_', '.' or '-' in <> or [], as <s> or [CLS]")
    return name


SpecialName = Annotated[str, AfterValidator(_special_name)]


class SpecialTokens(Frozen):
    """Names for the special tokens of a subword tokenizer; what is absent keeps the name that its style has.

    CLS begins a line and SEP ends it, so they are BOS and EOS under another name.
    """

    bos_token: SpecialName | None = None
    eos_token: SpecialName | None = None
    unk_token: SpecialName | None = None
    pad_token: SpecialName | None = None
    cls_token: SpecialName | None = None
    sep_token: SpecialName | None = None
    mask_token: SpecialName | None = None
    """A style without a mask token has one where it is named."""

    @property
    def by_role(self) -> dict[str, str]:
        """The names that are given, by what the tokens are for."""
        given = {
            "bos": self.bos_token or self.cls_token,
            "eos": self.eos_token or self.sep_token,
            "unk": self.unk_token,
            "pad": self.pad_token,
            "mask": self.mask_token,
        }
        return {role: name for role, name in given.items() if name is not None}

    @model_validator(mode="after")
    def _are_told_apart(self) -> "SpecialTokens":
        pairs = (("bos", self.bos_token, "cls", self.cls_token), ("eos", self.eos_token, "sep", self.sep_token))
        for role, name, alias, other in pairs:
            if name and other:
                raise ValueError(f"must name `{role}_token` or `{alias}_token`, not both: they are the same token")
        given = self.by_role
        for name in given.values():
            kept = next((other for other, names in _ROLES.items() if name in names and other not in given), None)
            if kept is not None:
                raise ValueError(f"must have different names: {name} is the `{kept}_token` already, so name that, too")
        if len(set(given.values())) < len(given):
            raise ValueError("must have different names: one is given twice")
        return self


def _none_given(value: object) -> None:
    if value:
        raise ValueError("must be null: this method keeps its own special tokens")


KeptTokens = Annotated[None, BeforeValidator(_none_given)]
"""In place of the map, where the special tokens cannot be renamed."""
RenamedTokens = Annotated[SpecialTokens | None, BeforeValidator(lambda value: value or None)]
"""An empty map renames nothing."""


class Normalization(Frozen):
    """What is done to every text before it is encoded, in training and at inference alike."""

    form: Literal["NFC"] = "NFC"
    lowercase: bool = False


class CharTokenizerConfig(Frozen):
    """One token per Unicode code point of the training split; specials [PAD] [UNK] [BOS] [EOS] = 0..3."""

    method: Literal["char"] = "char"
    vocab_size: VocabularySize | None = None
    """A cap by frequency, specials included; None keeps every character."""
    min_frequency: Count = 1
    mask_token: bool = False
    """Whether [MASK] = 4 stands before the characters, which masked_lm needs."""
    special_tokens: KeptTokens = None
    normalization: Normalization = Normalization()


class WordTokenizerConfig(Frozen):
    """One token per word between white space, in the order of the text; specials <UNK> <eos> = 0, 1."""

    method: Literal["word"] = "word"
    vocab_size: VocabularySize | None = None
    """A cap by frequency, specials included; None keeps every word."""
    min_frequency: Count = 1
    special_tokens: KeptTokens = None
    normalization: Normalization = Normalization()


class BpeTokenizerConfig(Frozen):
    """Byte-pair encoding of characters: the most frequent pair becomes a token, until there are enough."""

    method: Literal["bpe"] = "bpe"
    vocab_size: VocabularySize = 8000
    """At most so many tokens, specials and characters included."""
    min_frequency: Count = 1
    """Of a pair that becomes a token; every character is one."""
    special_style: SpecialStyle | None = None
    special_tokens: RenamedTokens = None
    normalization: Normalization = Normalization()


class WordPieceTokenizerConfig(Frozen):
    """WordPiece: of the tokens that begin what is left of a word, the longest; ## goes on with a word."""

    method: Literal["wordpiece"] = "wordpiece"
    vocab_size: VocabularySize = 8000
    """At most so many tokens, specials and characters (each with and without ##) included."""
    min_frequency: Count = 2
    """Of a pair that becomes a token; every character is one."""
    special_style: SpecialStyle | None = None
    special_tokens: RenamedTokens = None
    normalization: Normalization = Normalization()


class SentencePieceTokenizerConfig(Frozen):
    """SentencePiece: the likeliest pieces under a unigram model, or pairs merged by frequency."""

    method: Literal["sentencepiece"] = "sentencepiece"
    model_type: Literal["unigram", "bpe"] = "unigram"
    vocab_size: VocabularySize = 8000
    """At most so many tokens, specials and characters included."""
    special_style: SpecialStyle | None = None
    special_tokens: RenamedTokens = None
    normalization: Normalization = Normalization()


SubwordConfig: TypeAlias = BpeTokenizerConfig | WordPieceTokenizerConfig | SentencePieceTokenizerConfig


def style_of(config: SubwordConfig) -> SpecialStyle:
    """The style of the special tokens: as given, or as a run's model has it, else that of the method."""
    style = config.special_style or ("bert" if config.method == "wordpiece" else "gpt2")
    named = config.special_tokens is not None and config.special_tokens.mask_token is not None
    return "gpt2_mask" if style == "gpt2" and named else style


def special_names(config: SubwordConfig) -> dict[str, str]:
    """The special tokens by what they are for, in the order of their ids."""
    given = {} if config.special_tokens is None else config.special_tokens.by_role
    styled = {role_of(name): name for name in SPECIAL_NAMES[style_of(config)]}
    return {role: given.get(role, name) for role, name in styled.items()}


TokenizerConfig: TypeAlias = Annotated[
    CharTokenizerConfig
    | WordTokenizerConfig
    | BpeTokenizerConfig
    | WordPieceTokenizerConfig
    | SentencePieceTokenizerConfig,
    Field(discriminator="method"),
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
        given = self.config.special_tokens
        renamed = {} if given is None else {name: role for role, name in given.by_role.items()}
        return SpecialIds(**{renamed.get(name) or role_of(name): i for name, i in self.special_tokens.items()})
