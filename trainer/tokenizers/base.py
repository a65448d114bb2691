"""What the rest of the program asks of a tokenizer, whatever its method."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.artifacts.tokenizer_files import MANIFEST_FILE, tokenizer_file
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizers import (
    Normalization,
    SpecialIds,
    SubwordConfig,
    TokenizerCorpus,
    TokenizerManifest,
    special_names,
)
from trainer.system.files import write_atomically


class Vocabulary(NamedTuple):
    """How many tokens there are, and the ids of those that stand for no text."""

    size: int
    special_ids: SpecialIds


Span = tuple[int, int]
"""A half-open range of characters."""
Ids: TypeAlias = "NDArray[np.uint8 | np.uint16 | np.uint32]"
"""Token ids in the smallest of the three types that holds the vocabulary."""


class Text(NamedTuple):
    """Lines that a vocabulary is made from, which may be read more than once, and the corpus that they are of."""

    corpus: CorpusRef
    lines: Iterable[str]


class Reread(Iterable[str]):
    """Lines that are read from the start each time they are asked for."""

    def __init__(self, read: Callable[[], Iterator[str]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[str]:
        return self._read()


class Tokenizer(Protocol):
    """Text to ids and back; every text is normalized before it is encoded.

    A text has no special tokens: `[BOS]` written in it is five characters, and newlines belong to no document.
    """

    @property
    def manifest(self) -> TokenizerManifest: ...
    @property
    def normalization(self) -> Normalization: ...
    @property
    def special_ids(self) -> SpecialIds: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def texts(self) -> Sequence[str]:
        """What each id writes, by id: nothing for special tokens; words without the spaces between them."""
        ...

    def encode(self, text: str) -> list[int]: ...
    def encode_documents(self, lines: Sequence[str]) -> Ids:
        """Return [BOS] line [EOS] of each normalized line in one array; no [BOS] where the tokenizer has none."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the ids, which begins with that of any first part of them.

        Special tokens and ids outside the vocabulary have no text.
        """
        ...

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return each token as people see it; special tokens by their names."""
        ...

    def spans(self, text: str) -> list[Span]:
        """Return for each token of the text its range in the normalized text."""
        ...

    def save(self, folder: Path) -> None: ...


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary(tokenizer.vocab_size, tokenizer.special_ids)


class StoredTokenizer:
    """What all tokenizers have in common: one file, and the manifest that vouches for it."""

    _texts: Sequence[str]

    def __init__(self, manifest: TokenizerManifest, content: bytes, special_tokens: dict[str, int]) -> None:
        """Raises TOKENIZER_LOAD_FAILED where the special tokens of the manifest are others."""
        if manifest.special_tokens != special_tokens:
            raise broken(manifest, "is not one with the special tokens of its manifest")
        self._manifest = manifest
        self._content = content
        self._special_ids = manifest.special_ids

    @property
    def manifest(self) -> TokenizerManifest:
        return self._manifest

    @property
    def normalization(self) -> Normalization:
        return self._manifest.normalization

    @property
    def special_ids(self) -> SpecialIds:
        return self._special_ids

    @property
    def vocab_size(self) -> int:
        return self._manifest.vocab_size

    @property
    def texts(self) -> Sequence[str]:
        return self._texts

    def save(self, folder: Path) -> None:
        """Write the file and, when that is safe, the manifest that vouches for it."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / tokenizer_file(self._manifest.method), self._content)
        write_atomically(folder / MANIFEST_FILE, self._manifest.model_dump_json(indent=2).encode())


class Trained(NamedTuple):
    """What the training of a tokenizer gives: the content of its file, and what its manifest tells of that."""

    content: bytes
    special_tokens: dict[str, int]
    vocab_size: int
    characters: set[str]
    """Those that it has ids for, alone or in a token."""
    corpora: tuple[TokenizerCorpus, ...]
    versions: dict[str, str]


def numbered_names(manifest: TokenizerManifest) -> dict[str, int]:
    """Return the special tokens of a subword tokenizer with their ids; raises TOKENIZER_LOAD_FAILED for another's."""
    if not isinstance(manifest.config, SubwordConfig):
        raise broken(manifest, "is of another method than the config of its manifest")
    return numbered(special_names(manifest.config))


def numbered(names: Mapping[str, str]) -> dict[str, int]:
    """Return the special tokens, given by what they are for, with their ids: their places."""
    return {name: place for place, name in enumerate(names.values())}


def documents_of(lines: Iterable[Sequence[int]], special_ids: SpecialIds, vocab_size: int) -> Ids:
    """Return the ids of the lines in one array, each between [BOS], where there is one, and [EOS]."""
    begin = [] if special_ids.bos is None else [special_ids.bos]
    ids = [i for line in lines for i in (*begin, *line, special_ids.eos)]
    return np.array(ids, dtype=ids_type(vocab_size))


def ids_type(vocab_size: int) -> type[np.uint8] | type[np.uint16] | type[np.uint32]:
    """Return the smallest type that holds every id of the vocabulary."""
    if vocab_size <= 1 << 8:
        return np.uint8
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def broken(manifest: TokenizerManifest, what: str) -> AppError:
    """The error of a stored tokenizer whose file is not as it was saved."""
    return AppError(
        ErrorCode.TOKENIZER_LOAD_FAILED, f"The tokenizer's file '{tokenizer_file(manifest.method)}' {what}."
    )
