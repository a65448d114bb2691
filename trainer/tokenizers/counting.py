"""What a tokenizer is made from and measured on, counted: lines, characters, words, tokens."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import TokenizerCorpus, TokenizerStats
from trainer.data.corpus import blocks
from trainer.tokenizers.base import Text, Tokenizer

CODE_POINTS = 0x110000


class CountedLines:
    """The lines of a text, counted as they are read."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._lines = self._characters = 0

    def blocks(self) -> Iterator[list[str]]:
        """Yield the lines, many at a time."""
        for block in blocks(self._text.lines):
            self._lines += len(block)
            self._characters += sum(map(len, block))
            yield block

    def counted(self) -> TokenizerCorpus:
        """Return the text with what was read of it so far."""
        corpus = self._text.corpus
        return TokenizerCorpus(name=corpus.name, sha256=corpus.sha256, lines=self._lines, chars=self._characters)


def code_points(text: str) -> NDArray[np.uint32]:
    # A lone surrogate is no character of any corpus: it becomes [UNK] instead of an error.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


class CharacterCounts(NamedTuple):
    """How often each code point occurs in all of some texts, and what was read of each."""

    by_code_point: NDArray[np.int64]
    corpora: tuple[TokenizerCorpus, ...]

    @property
    def characters(self) -> list[str]:
        """Those that there are, by code point."""
        found: list[int] = np.flatnonzero(self.by_code_point).tolist()
        return [chr(code_point) for code_point in found]


def count_characters(texts: Iterable[Text]) -> CharacterCounts:
    """Count every code point of all the texts."""
    counts = np.zeros(CODE_POINTS, dtype=np.int64)
    corpora: list[TokenizerCorpus] = []
    for text in texts:
        lines = CountedLines(text)
        for block in lines.blocks():
            counts += np.bincount(code_points("".join(block)), minlength=CODE_POINTS)
        corpora.append(lines.counted())
    return CharacterCounts(counts, tuple(corpora))


def check_room(vocab_size: int, characters: int, needed: int) -> None:
    """Refuse a vocabulary that does not even hold what the characters of the text need."""
    if vocab_size < needed:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"`vocab_size` must be at least {needed:,} for this text, whose {characters:,} different characters all"
            f" have tokens of their own; you gave {vocab_size:,}.",
        )


def statistics(tokenizer: Tokenizer, characters: set[str], holdout_lines: Iterable[str]) -> TokenizerStats:
    """Measure a tokenizer that has ids for these characters on lines that it was not made from."""
    special_ids = tokenizer.special_ids
    line_count = words = chars = tokens = unknown = 0
    distinct: set[str] = set()
    for block in blocks(holdout_lines):
        ids = tokenizer.encode_documents(block)
        line_count += len(block)
        words += sum(len(line.split()) for line in block)
        chars += sum(map(len, block))
        tokens += len(ids) - len(block) * (1 if special_ids.bos is None else 2)
        is_unknown: NDArray[np.bool_] = ids == special_ids.unk
        unknown += int(np.count_nonzero(is_unknown))
        distinct.update("".join(block))
    coverage = (tokens - unknown) / tokens
    return TokenizerStats(
        coverage=coverage,
        oov_rate=1 - coverage,
        token_count=tokens,
        char_coverage=len(distinct & characters) / len(distinct),
        avg_tokens_per_char=tokens / chars,
        avg_tokens_per_word=tokens / words,
        holdout_lines=line_count,
    )
