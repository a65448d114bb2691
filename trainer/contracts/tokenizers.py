"""Configs and manifests of tokenizers."""

import re
from typing import Annotated, Literal, NamedTuple, TypeAlias, get_args

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic.config import JsonDict

from trainer.contracts.base import Count, FileRecord, Frozen, Sha256, Timestamp, describe_fields, requires

TokenizerMethod = Literal["char", "byte", "word", "bpe", "wordpiece", "sentencepiece"]
METHODS: tuple[TokenizerMethod, ...] = get_args(TokenizerMethod)
VocabularySize = Annotated[int, Field(gt=0, le=1_000_000)]
SpecialStyle = Literal["gpt2", "gpt2_mask", "bert"]
SPECIAL_NAMES: dict[SpecialStyle, tuple[str, ...]] = {
    "gpt2": ("<s>", "</s>", "<unk>", "<pad>"),
    "gpt2_mask": ("<s>", "</s>", "<unk>", "<pad>", "<mask>"),
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
}
"""Special tokens of a subword tokenizer by the style of its model, in order of their ids."""
UNKNOWN_NAMES = ("[UNK]", "<unk>", "<UNK>")
_ROLES = {
    "bos": ("[BOS]", "<s>", "[CLS]"),
    "eos": ("[EOS]", "</s>", "[SEP]", "<eos>"),
    "unk": UNKNOWN_NAMES,
    "pad": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
}
"""Names of each role of a special token."""


_FORM = r"^(<[/|]?[_.-]*[a-zA-Z0-9][a-zA-Z0-9_.-]*\|?>|\[[_.-]*[a-zA-Z0-9][a-zA-Z0-9_.-]*\])$"
"""Text of this form is cut apart, so no token of text equals a special token."""
_Form = requires(
    re.compile(_FORM).fullmatch, "letters (a-z, A-Z), digits, '_', '.' or '-' in <> or [], as <s> or [CLS]"
)
SpecialName = Annotated[str, _Form, Field(max_length=64, json_schema_extra={"x-pattern": _FORM})]


class SpecialTokens(Frozen):
    """Other names for the special tokens of a subword tokenizer; absent ones keep the name of the style.

    CLS and SEP are other names for BOS and EOS: they begin and end a line.
    """

    bos_token: SpecialName | None = None
    eos_token: SpecialName | None = None
    unk_token: SpecialName | None = None
    pad_token: SpecialName | None = None
    cls_token: SpecialName | None = None
    sep_token: SpecialName | None = None
    mask_token: SpecialName | None = None
    """Naming it adds a mask token to a style without one."""

    @property
    def by_role(self) -> dict[str, str]:
        """The given names by role."""
        given = {
            "bos": self.bos_token or self.cls_token,
            "eos": self.eos_token or self.sep_token,
            "unk": self.unk_token,
            "pad": self.pad_token,
            "mask": self.mask_token,
        }
        return {role: name for role, name in given.items() if name is not None}

    @model_validator(mode="after")
    def _check_distinct(self) -> "SpecialTokens":
        pairs = (("bos", self.bos_token, "cls", self.cls_token), ("eos", self.eos_token, "sep", self.sep_token))
        for role, name, alias, other in pairs:
            if name and other:
                raise ValueError(f"must name `{role}_token` or `{alias}_token`, not both: they are the same token")
        given = self.by_role
        for name in given.values():
            kept = next((other for other, names in _ROLES.items() if name in names and other not in given), None)
            if kept is not None:
                raise ValueError(
                    f"must have different names: {name} is already the `{kept}_token`; rename that one, too"
                )
        if len(set(given.values())) < len(given):
            raise ValueError("must have different names: one is given twice")
        return self


def _empty_as_none(value: object) -> object:
    return None if value == {} else value


def _refuse_any(value: object) -> None:
    if _empty_as_none(value) is not None:
        raise ValueError("must be null: this method keeps its own special tokens")


_EMPTY: JsonDict = {"x-type": ["null", "object"], "x-maxProperties": 0}
KeptTokens = Annotated[None, BeforeValidator(_refuse_any), Field(json_schema_extra=_EMPTY)]
"""Type of `special_tokens` for methods whose special tokens cannot be renamed."""
RenamedTokens = Annotated[SpecialTokens | None, BeforeValidator(_empty_as_none)]
"""An empty map renames nothing."""


LowercaseLanguage = Literal["tr", "az"]
"""Languages with a lower case of their own."""


class Normalization(Frozen, json_schema_extra=describe_fields):
    """Normalization of every text before it is encoded, in training and inference."""

    form: Literal["NFC"] = "NFC"
    """Unicode normalization form."""
    lowercase: bool | LowercaseLanguage = False
    """Convert texts to lower case; tr, az: as Turkish and Azerbaijani do, where I becomes ı, and İ becomes i."""


class CharTokenizerConfig(Frozen, json_schema_extra=describe_fields):
    """One token per Unicode code point of the training split; specials [PAD] [UNK] [BOS] [EOS] = 0..3.

    `mt train --help` shows its docstrings for the fields that other methods have, too.
    """

    method: Literal["char"] = "char"
    """Tokenizer method."""
    vocab_size: VocabularySize | None = None
    """Largest vocabulary, special tokens included; default: every character."""
    min_frequency: Count = 1
    """Fewest occurrences of a character in the vocabulary."""
    mask_token: bool = False
    """Add [MASK] as token 4; masked_lm needs it."""
    special_tokens: KeptTokens = None
    """Cannot be set: this method keeps its own special tokens."""
    normalization: Normalization = Normalization()
    """Normalization of every text before it is encoded."""


class ByteTokenizerConfig(Frozen, json_schema_extra=describe_fields):
    """One token per byte of UTF-8, so no text is unknown; specials [PAD] [UNK] [BOS] [EOS] = 0..3."""

    method: Literal["byte"] = "byte"
    vocab_size: Annotated[int, Field(ge=261, le=1_000_000)] | None = None
    """Largest vocabulary, which always is the 256 bytes and the special tokens."""
    mask_token: bool = False
    special_tokens: KeptTokens = None
    normalization: Normalization = Normalization()


class WordTokenizerConfig(Frozen, json_schema_extra=describe_fields):
    """One token per word between white space, in order of appearance; specials <UNK> <eos> = 0, 1."""

    method: Literal["word"] = "word"
    vocab_size: VocabularySize | None = None
    """Largest vocabulary, special tokens included; default: every word."""
    min_frequency: Count = 1
    """Fewest occurrences of a word in the vocabulary."""
    special_tokens: KeptTokens = None
    normalization: Normalization = Normalization()


def _without_default(schema: JsonDict) -> None:
    """Describe a field without its default, because a run chooses it by its text."""
    del schema["default"]


class _SubwordOptions(Frozen, json_schema_extra=describe_fields):
    vocab_size: Annotated[VocabularySize, Field(json_schema_extra=_without_default)] = 8000
    """Largest vocabulary, special tokens and characters included. By rule: by the length of the text."""
    special_style: SpecialStyle | None = None
    """Style of the special tokens; default: that of the model."""
    special_tokens: RenamedTokens = None
    """Other names for special tokens."""
    normalization: Normalization = Normalization()


class _FallbackOptions(_SubwordOptions):
    byte_fallback: bool = False
    """Encode unknown characters as their UTF-8 bytes, of which 256 belong to the vocabulary."""


class BpeTokenizerConfig(_FallbackOptions):
    """Byte-pair encoding of characters: merges the most frequent pair until the vocabulary is full."""

    method: Literal["bpe"] = "bpe"
    min_frequency: Count = 1
    """Fewest occurrences of a merged pair."""


class WordPieceTokenizerConfig(_SubwordOptions):
    """WordPiece: the longest token that matches the rest of a word; ## continues a word."""

    method: Literal["wordpiece"] = "wordpiece"
    min_frequency: Count = 2
    """Fewest occurrences of a merged pair."""


class SentencePieceTokenizerConfig(_FallbackOptions):
    """SentencePiece: the most probable pieces under a unigram model, or pairs merged by frequency."""

    method: Literal["sentencepiece"] = "sentencepiece"
    model_type: Literal["unigram", "bpe"] = "unigram"
    """Algorithm of SentencePiece."""


BYTE_NAMES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Tokens of the bytes of unknown characters."""
SubwordConfig: TypeAlias = BpeTokenizerConfig | WordPieceTokenizerConfig | SentencePieceTokenizerConfig


def style_of(config: SubwordConfig) -> SpecialStyle:
    """Return the style of the special tokens: the given style or the default of the method."""
    style = config.special_style or ("bert" if config.method == "wordpiece" else "gpt2")
    named = config.special_tokens is not None and config.special_tokens.mask_token is not None
    return "gpt2_mask" if style == "gpt2" and named else style


def has_byte_fallback(config: BaseModel) -> bool:
    """Return True if the tokenizer encodes unknown characters as bytes."""
    return isinstance(config, _FallbackOptions) and config.byte_fallback


def special_names(config: SubwordConfig) -> dict[str, str]:
    """Return the special tokens by role, in the order of their ids."""
    given = {} if config.special_tokens is None else config.special_tokens.by_role
    styled = {role_of(name): name for name in SPECIAL_NAMES[style_of(config)]}
    return {role: given.get(role, name) for role, name in styled.items()}


TokenizerConfig: TypeAlias = Annotated[
    CharTokenizerConfig
    | ByteTokenizerConfig
    | WordTokenizerConfig
    | BpeTokenizerConfig
    | WordPieceTokenizerConfig
    | SentencePieceTokenizerConfig,
    Field(discriminator="method"),
]
"""The union of all tokenizers' configs, by `method`."""
SplitBy = Literal["line", "file", "position"]
"""Units in which a corpus is split: lines or files drawn by seed, or lines by position."""
DocumentMode = Literal["line", "stream"]
"""The documents of a text: each line by itself, or the complete text with its newlines as tokens."""
CONFIGS: dict[str, type[TokenizerConfig]] = {
    "char": CharTokenizerConfig,
    "byte": ByteTokenizerConfig,
    "word": WordTokenizerConfig,
    "bpe": BpeTokenizerConfig,
    "wordpiece": WordPieceTokenizerConfig,
    "sentencepiece": SentencePieceTokenizerConfig,
}


def role_of(special_token: str) -> str:
    """Return the role of a special token: bos, eos, unk, pad or mask."""
    return next(role for role, names in _ROLES.items() if special_token in names)


class SpecialIds(NamedTuple):
    """Ids of the special tokens by role; None if the tokenizer lacks the token."""

    unk: int
    eos: int
    bos: int | None = None
    pad: int | None = None
    mask: int | None = None
    newline: int | None = None
    """The token of a newline in a stream, which has neither BOS nor EOS; None if each line is a document."""

    @property
    def line_start(self) -> int | None:
        """The token before each line, which is never predicted; None if lines have no such token."""
        return self.bos if self.newline is None else None

    @property
    def line_end(self) -> int:
        """The token after each line: EOS, or the newline of a stream."""
        return self.eos if self.newline is None else self.newline

    @property
    def start(self) -> int:
        """The token before a text: BOS, or the end of the previous line."""
        return self.line_end if self.line_start is None else self.line_start

    @property
    def ends_per_line(self) -> int:
        """The number of EOS after each line; a newline of a stream belongs to the text."""
        return int(self.newline is None)

    @property
    def marks_per_line(self) -> int:
        """The number of BOS and EOS around each line."""
        return self.ends_per_line + int(self.line_start is not None)

    @property
    def filler(self) -> int:
        """The token that fills rows after their end; never a target."""
        return self.eos if self.pad is None else self.pad

    @property
    def all(self) -> list[int]:
        return [i for i in (self.unk, self.eos, self.bos, self.pad, self.mask) if i is not None]

    @property
    def never_sampled(self) -> list[int]:
        return [i for i in self.all if i != self.line_end]


class TokenizerStats(Frozen):
    """Fit of the vocabulary to held-out lines."""

    coverage: float
    """Share of held-out tokens that are known."""
    oov_rate: float
    """Share of held-out tokens that are unknown: 1 - coverage."""
    unknown_char_share: float
    """Share of held-out characters that are unknown."""
    token_count: int
    char_coverage: float
    """Share of distinct held-out characters in the vocabulary."""
    avg_tokens_per_char: float
    avg_tokens_per_word: float
    holdout_lines: int


class TokenizerCorpus(Frozen):
    """A corpus that the vocabulary was trained on."""

    name: str
    sha256: Sha256
    lines: int
    chars: int


class TokenizerManifest(Frozen):
    """`manifest.json` of a tokenizer: its config, corpora, special tokens and statistics."""

    schema_version: Literal[1] = 1
    tokenizer_id: str
    method: TokenizerMethod
    vocab_size: int
    special_tokens: dict[str, int]
    normalization: Normalization
    documents: DocumentMode = "line"
    corpus: tuple[TokenizerCorpus, ...]
    config: TokenizerConfig
    stats: TokenizerStats
    seed: int
    split_by: SplitBy
    holdout_fraction: float
    test_fraction: float
    """The split of each corpus whose training lines made the vocabulary."""
    versions: dict[str, str]
    created_at: Timestamp
    files: tuple[FileRecord, ...]

    @property
    def special_ids(self) -> SpecialIds:
        given = self.config.special_tokens
        renamed = {} if given is None else {name: role for role, name in given.by_role.items()}
        return SpecialIds(**{renamed.get(name) or role_of(name): i for name, i in self.special_tokens.items()})
