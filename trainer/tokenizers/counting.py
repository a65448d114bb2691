"""Counts of a tokenizer's training texts, and its statistics on held-out lines."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import (
    BYTE_NAMES,
    CharTokenizerConfig,
    DocumentMode,
    SubwordConfig,
    TokenizerCorpus,
    TokenizerStats,
    WordTokenizerConfig,
    has_byte_fallback,
)
from trainer.data.words import is_separator, split_words
from trainer.tokenizers.base import Ids, Text, Tokenizer

CODE_POINTS = 0x110000
Counts: TypeAlias = "NDArray[np.int64]"
_NEWLINE = ord("\n")


_SPACES = [i for i in range(0x3001) if is_separator(chr(i))]
_IS_SPACE = np.zeros(CODE_POINTS, dtype=np.bool_)
_IS_SPACE[_SPACES] = True
_LONGER_IN_UTF8 = (0x80, 0x800, 0x10000)
"""The first code points that have a byte more in UTF-8 than those before them."""


def count_lines(
    texts: Iterable[Text], add: Callable[[str], None], documents: DocumentMode
) -> tuple[TokenizerCorpus, ...]:
    """Pass the lines of all texts to `add`, in blocks, and return the size of each corpus."""
    corpora: list[TokenizerCorpus] = []
    for text in texts:
        lines = characters = 0
        for block in text.lines():
            newlines = block.count("\n")
            lines += newlines + 1
            characters += len(block) - newlines if documents == "line" else len(block) + 1
            add(block)
        corpora.append(TokenizerCorpus(name=text.corpus.name, sha256=text.corpus.sha256, lines=lines, chars=characters))
    return tuple(corpora)


class TextSize(NamedTuple):
    """The size of some lines, in a stream with their newlines. Words are those of `split_words`."""

    lines: int
    characters: int
    words: int
    utf8_bytes: int


def text_size(text: str, documents: DocumentMode = "line") -> TextSize:
    """Return the size of lines, which newlines separate."""
    characters = code_points(text)
    is_newline: NDArray[np.bool_] = characters == _NEWLINE
    newlines = int(np.count_nonzero(is_newline))
    is_space: NDArray[np.bool_] = np.take(_IS_SPACE, characters)
    words = int(np.count_nonzero(is_space[:-1] < is_space[1:])) + (split_words(text[-1:]) != [])
    utf8_bytes = len(characters) + sum(int(np.count_nonzero(characters >= first)) for first in _LONGER_IN_UTF8)
    uncounted = newlines if documents == "line" else -1  # the last line has a newline too
    return TextSize(newlines + 1, len(characters) - uncounted, words, utf8_bytes - uncounted)


def code_points(text: str) -> NDArray[np.uint32]:
    # surrogatepass: a lone surrogate becomes [UNK] instead of an error
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


class CharacterCounts(NamedTuple):
    """Occurrences of each character of all texts, in the order of code points, and the size of each corpus.

    The newline is a character of a stream only.
    """

    characters: dict[str, int]
    corpora: tuple[TokenizerCorpus, ...]


def count_characters(texts: Iterable[Text], documents: DocumentMode) -> CharacterCounts:
    """Count the characters of all texts."""
    totals = np.zeros(CODE_POINTS, dtype=np.int64)

    def add(block: str) -> None:
        occurrences: Counts = np.bincount(code_points(block))
        totals[: len(occurrences)] += occurrences

    corpora = count_lines(texts, add, documents)
    totals[_NEWLINE] = sum(corpus.lines for corpus in corpora) if documents == "stream" else 0
    occurring: list[int] = np.flatnonzero(totals).tolist()
    frequencies: list[int] = totals[occurring].tolist()
    return CharacterCounts(dict(zip(map(chr, occurring), frequencies, strict=True)), corpora)


def frequent_tokens(
    config: CharTokenizerConfig | WordTokenizerConfig, counts: Mapping[str, int], special_tokens: Collection[str]
) -> list[str]:
    """Return a vocabulary's tokens in the order of the counts; a capped one has the most frequent, then the first."""
    selected = [token for token, n in counts.items() if n >= config.min_frequency and token not in special_tokens]
    if config.vocab_size is None:
        return selected
    room = max(0, config.vocab_size - len(special_tokens))
    most_frequent = set(sorted(selected, key=counts.__getitem__, reverse=True)[:room])
    return [token for token in selected if token in most_frequent]


def check_room(config: SubwordConfig, characters: int, needed: int) -> None:
    """Raise INVALID_INPUT if a vocabulary is too small for `needed` tokens and, with `byte_fallback`, 256 bytes."""
    also = ""
    if has_byte_fallback(config):
        needed, also = needed + len(BYTE_NAMES), f" and each of the {len(BYTE_NAMES)} bytes of `byte_fallback`"
    if config.vocab_size < needed:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"`vocab_size` must be at least {needed:,} for this text, because each of its {characters:,} characters"
            f"{also} needs a token; you gave {config.vocab_size:,}.",
        )


def counts_of(tokenizer: Tokenizer, lines: str, ids: Ids) -> dict[str, int]:
    """Return the counts of normalized lines and their ids: the fields of SplitSizes, and words."""
    size, special_ids = text_size(lines, tokenizer.documents), tokenizer.special_ids
    is_unknown: NDArray[np.bool_] = ids == special_ids.unk
    return {
        "lines": size.lines,
        "chars": size.characters,
        "bytes": size.utf8_bytes,
        "tokens": len(ids) - (0 if special_ids.line_start is None else size.lines),
        "unknown_tokens": int(np.count_nonzero(is_unknown)),
        "unknown_chars": tokenizer.unknown_characters(lines, ids),
        "words": size.words,
    }


def statistics(tokenizer: Tokenizer, characters: set[str] | None, holdout_lines: Iterable[str]) -> TokenizerStats:
    """Measure a tokenizer whose vocabulary covers these characters, or all, on lines that newlines separate."""
    counts = Counter[str]()
    occurs = np.zeros(CODE_POINTS, dtype=np.bool_)
    for block in holdout_lines:
        ids = tokenizer.encode_documents(block)
        counts.update(counts_of(tokenizer, block, ids))
        occurs[code_points(block)] = True
    occurs[ord("\n")] = False
    occurring: list[int] = np.flatnonzero(occurs).tolist()
    distinct = set(map(chr, occurring))
    tokens = counts["tokens"] - counts["lines"] * tokenizer.special_ids.ends_per_line
    coverage = (tokens - counts["unknown_tokens"]) / tokens
    return TokenizerStats(
        coverage=coverage,
        oov_rate=1 - coverage,
        unknown_char_share=counts["unknown_chars"] / counts["chars"],
        token_count=tokens,
        char_coverage=1.0 if characters is None else len(distinct & characters) / len(distinct),
        avg_tokens_per_char=tokens / counts["chars"],
        avg_tokens_per_word=tokens / counts["words"],
        holdout_lines=counts["lines"],
    )
