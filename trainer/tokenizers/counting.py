"""Counts of a tokenizer's training texts, and its statistics on held-out lines."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import TokenizerCorpus, TokenizerStats
from trainer.data.corpus import blocks
from trainer.tokenizers.base import Text, Tokenizer

CODE_POINTS = 0x110000


def count_lines(texts: Iterable[Text], add: Callable[[list[str]], None]) -> tuple[TokenizerCorpus, ...]:
    """Pass the lines of all texts to `add`, in blocks, and return the size of each corpus."""
    corpora: list[TokenizerCorpus] = []
    for text in texts:
        lines = characters = 0
        for block in blocks(text.lines()):
            lines += len(block)
            characters += sum(map(len, block))
            add(block)
        corpora.append(TokenizerCorpus(name=text.corpus.name, sha256=text.corpus.sha256, lines=lines, chars=characters))
    return tuple(corpora)


def code_points(text: str) -> NDArray[np.uint32]:
    # surrogatepass: a lone surrogate becomes [UNK] instead of an error
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


class CharacterCounts(NamedTuple):
    """Number of occurrences of each code point in all texts, and the size of each corpus."""

    by_code_point: NDArray[np.int64]
    corpora: tuple[TokenizerCorpus, ...]

    @property
    def characters(self) -> list[str]:
        """The characters that occur, by code point."""
        occurring: list[int] = np.flatnonzero(self.by_code_point).tolist()
        return [chr(code_point) for code_point in occurring]


def count_characters(texts: Iterable[Text]) -> CharacterCounts:
    """Count the code points of all texts."""
    counts = np.zeros(CODE_POINTS, dtype=np.int64)

    def add(block: list[str]) -> None:
        counts[:] += np.bincount(code_points("".join(block)), minlength=CODE_POINTS)

    return CharacterCounts(counts, count_lines(texts, add))


def check_room(vocab_size: int, characters: int, needed: int) -> None:
    """Raise INVALID_INPUT if a vocabulary is smaller than the number of tokens that the characters need."""
    if vocab_size < needed:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"`vocab_size` must be at least {needed:,} for this text, because each of its {characters:,} characters"
            f" needs a token; you gave {vocab_size:,}.",
        )


def statistics(tokenizer: Tokenizer, characters: set[str], holdout_lines: Iterable[str]) -> TokenizerStats:
    """Measure a tokenizer whose vocabulary covers these characters on held-out lines."""
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
