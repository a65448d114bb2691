"""The interface of tokenizers, the same for every method."""

import re
from abc import ABC, abstractmethod
from array import array
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.artifacts.tokenizer_files import MANIFEST_FILE, tokenizer_file
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizers import (
    SpecialIds,
    SubwordConfig,
    TokenizerCorpus,
    TokenizerManifest,
    special_names,
)
from trainer.system.files import write_atomically

NEWLINE = "\n"
SPACE = "\u2581"
"""The space in the tokens of SentencePiece."""
_SPACES = f" {SPACE}"
_BYTE = re.compile("<0x([0-9A-F]{2})>")


class Vocabulary(NamedTuple):
    """Number of tokens, and the ids of the special ones."""

    size: int
    special_ids: SpecialIds


Span = tuple[int, int]
"""A half-open range of characters."""
Ids: TypeAlias = "NDArray[np.uint8 | np.uint16 | np.uint32]"
"""Token ids in the smallest of the three types that holds the vocabulary."""


class Text(NamedTuple):
    """A corpus to train a tokenizer on.

    `lines()` reads its lines from the start each time, in blocks in which newlines separate them.
    """

    corpus: CorpusRef
    lines: Callable[[], Iterable[str]]


class Tokenizer(ABC):
    """Converts text to ids and back. It normalizes every text before encoding, except in `encode_documents`.

    A text contains no special tokens: `[BOS]` in a text is five characters. A newline is a token of a stream only.
    """

    def __init__(
        self,
        content: bytes,
        manifest: TokenizerManifest,
        special_tokens: dict[str, int],
        names: list[str],
        text_of: Callable[[str], str] = str,
        newline: str = NEWLINE,
        *,
        has_bytes: bool = False,
    ) -> None:
        """Take the names of all ids, of which `text_of` returns the text; `newline` is the name of a stream's newline.

        With `has_bytes`, a token named <0xC3> is that byte of a character.

        Raises TOKENIZER_LOAD_FAILED if the names or the manifest have other special tokens, or if the tokenizer of a
        stream has no newline.
        """
        if manifest.special_tokens != special_tokens or names[: len(special_tokens)] != list(special_tokens):
            raise load_error(manifest, "does not have the special tokens of its manifest")
        self.names = names
        """Name of each id as people see it; special tokens by their names."""
        self.texts = ["" for _ in special_tokens] + [text_of(name) for name in names[len(special_tokens) :]]
        """Text of each id: empty for special tokens; words without the spaces between them."""
        found = [_BYTE.fullmatch(name) if has_bytes else None for name in names]
        self.byte_values = {i: int(match[1], 16) for i, match in enumerate(found) if match is not None}
        """The byte of each token that is a byte of a character; it has no text by itself."""
        for i in self.byte_values:
            self.texts[i] = ""
        self.manifest = manifest
        self.normalization = manifest.normalization
        self.documents = manifest.documents
        self.special_ids = manifest.special_ids
        if self.documents == "stream":
            if newline not in names:
                raise load_error(manifest, "has no newline")
            self.special_ids = self.special_ids._replace(newline=names.index(newline))
            self.texts[names.index(newline)] = NEWLINE
        self.vocab_size = manifest.vocab_size
        self._content = content

    @cached_property
    def word_start_ids(self) -> frozenset[int]:
        """The tokens that begin with a space, if some of them are a word or its beginning; else none."""
        spaced = [i for i, text in enumerate(self.texts) if text[:1] == " " and self.names[i][0] in _SPACES]
        return frozenset(spaced if any(self.texts[i] != " " for i in spaced) else ())

    @abstractmethod
    def encode(self, text: str) -> list[int]: ...

    @abstractmethod
    def encode_documents(self, lines: str) -> Ids:
        """Return [BOS] line [EOS] of each normalized line in one array, without [BOS] if the tokenizer has none.

        Newlines separate the lines. Each line of a stream ends with the token of a newline instead.
        """

    def unknown_characters(self, lines: str, ids: Ids) -> int:
        """Return how many characters of normalized lines the unknown tokens among their ids stand for: one each."""
        is_unknown: NDArray[np.bool_] = ids == self.special_ids.unk
        return int(np.count_nonzero(is_unknown))

    @abstractmethod
    def spans(self, text: str) -> list[Span]:
        """Return the range of each token in the normalized text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the ids. The text of a prefix of the ids is a prefix of it.

        Special tokens and ids outside the vocabulary have no text.
        """
        return "".join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return for each id the text that it adds to the text of the ids before it.

        The last byte of a character adds the character; bytes that are no character add U+FFFD.
        """
        texts = [self.texts[i] if 0 <= i < len(self.texts) else "" for i in ids]
        if not self.byte_values:
            return texts
        decoder = getincrementaldecoder("utf-8")("replace")
        return [
            decoder.decode(bytes((self.byte_values[i],))) if i in self.byte_values else decoder.decode(b"", True) + text
            for i, text in zip(ids, texts, strict=True)
        ]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the name of each token."""
        return [self.names[i] for i in ids]

    def save(self, folder: Path) -> None:
        """Write the vocabulary file, and then the manifest with its hash."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / tokenizer_file(self.manifest.method), self._content)
        write_atomically(folder / MANIFEST_FILE, self.manifest.model_dump_json(indent=2).encode())


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary(tokenizer.vocab_size, tokenizer.special_ids)


class Trained(NamedTuple):
    """A trained tokenizer: the content of its file, and the fields of its manifest."""

    content: bytes
    special_tokens: dict[str, int]
    vocab_size: int
    characters: set[str] | None
    """Characters that the vocabulary covers; None: every character."""
    corpora: tuple[TokenizerCorpus, ...]
    versions: dict[str, str]


def special_token_ids(config: SubwordConfig) -> dict[str, int]:
    """Return the special tokens of a subword tokenizer with their ids."""
    return {name: i for i, name in enumerate(special_names(config).values())}


def join_ids(documents: Iterable[list[int]], vocab_size: int) -> Ids:
    """Return the ids of all documents in one array."""
    ids = array("I")
    for document in documents:
        ids.fromlist(document)
    return np.frombuffer(ids, dtype=np.uintc).astype(ids_type(vocab_size))


def ids_type(vocab_size: int) -> type[np.uint8] | type[np.uint16] | type[np.uint32]:
    """Return the smallest type that holds every id of the vocabulary."""
    if vocab_size <= 1 << 8:
        return np.uint8
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def load_error(manifest: TokenizerManifest, problem: str) -> AppError:
    """Return the TOKENIZER_LOAD_FAILED error of a stored tokenizer."""
    return AppError(
        ErrorCode.TOKENIZER_LOAD_FAILED, f"The tokenizer's file '{tokenizer_file(manifest.method)}' {problem}."
    )
