"""Counts of a tokenizer's training texts, and its statistics on held-out lines."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import CharTokenizerConfig, TokenizerCorpus, TokenizerStats, WordTokenizerConfig
from trainer.system.parallel import ordered_map
from trainer.tokenizers.base import Text, Tokenizer

CODE_POINTS = 0x110000


_SPACES = [i for i in range(0x3001) if chr(i).isspace()]
_IS_SPACE = np.zeros(CODE_POINTS, dtype=np.bool_)
_IS_SPACE[_SPACES] = True
Count = TypeVar("Count")


def count_lines(
    texts: Iterable[Text], count: Callable[[list[str]], Count], add: Callable[[Count], None]
) -> tuple[TokenizerCorpus, ...]:
    """Pass the counts of all texts to `add`, a block of lines at a time, and return the size of each corpus."""
    corpora: list[TokenizerCorpus] = []

    def counted(block: list[str]) -> tuple[int, int, Count]:
        return len(block), sum(map(len, block)), count(block)

    for text in texts:
        lines = characters = 0
        for lines_of_block, characters_of_block, counts in ordered_map(counted, text.lines()):
            lines += lines_of_block
            characters += characters_of_block
            add(counts)
        corpora.append(TokenizerCorpus(name=text.corpus.name, sha256=text.corpus.sha256, lines=lines, chars=characters))
    return tuple(corpora)


def count_words(text: str) -> int:
    """Return the number of words between white space, as `str.split` finds them."""
    is_space: NDArray[np.bool_] = np.take(_IS_SPACE, code_points(f" {text}"))
    return int(np.count_nonzero(is_space[:-1] > is_space[1:]))


def code_points(text: str) -> NDArray[np.uint32]:
    # surrogatepass: a lone surrogate becomes [UNK] instead of an error
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


class CharacterCounts(NamedTuple):
    """Occurrences of each character of all texts, in the order of code points, and the size of each corpus."""

    characters: dict[str, int]
    corpora: tuple[TokenizerCorpus, ...]


def count_characters(texts: Iterable[Text]) -> CharacterCounts:
    """Count the characters of all texts."""
    counts = np.zeros(CODE_POINTS, dtype=np.int64)

    def count(block: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        occurrences: NDArray[np.int64] = np.bincount(code_points("".join(block)))
        occurring: NDArray[np.int64] = np.flatnonzero(occurrences)
        return occurring, occurrences[occurring]

    def add(counted: tuple[NDArray[np.int64], NDArray[np.int64]]) -> None:
        characters, occurrences = counted
        counts[characters] += occurrences

    corpora = count_lines(texts, count, add)
    occurring: list[int] = np.flatnonzero(counts).tolist()
    frequencies: list[int] = counts[occurring].tolist()
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


def check_room(vocab_size: int, characters: int, needed: int) -> None:
    """Raise INVALID_INPUT if a vocabulary is smaller than the number of tokens that the characters need."""
    if vocab_size < needed:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"`vocab_size` must be at least {needed:,} for this text, because each of its {characters:,} characters"
            f" needs a token; you gave {vocab_size:,}.",
        )


def statistics(tokenizer: Tokenizer, characters: set[str], holdout_lines: Iterable[list[str]]) -> TokenizerStats:
    """Measure a tokenizer whose vocabulary covers these characters on held-out lines."""
    special_ids = tokenizer.special_ids
    line_count = words = chars = tokens = unknown = 0
    occurs = np.zeros(CODE_POINTS, dtype=np.bool_)
    for block in holdout_lines:
        ids = tokenizer.encode_documents(block)
        line_count += len(block)
        words += count_words("\n".join(block))
        chars += sum(map(len, block))
        tokens += len(ids) - len(block) * (1 if special_ids.bos is None else 2)
        is_unknown: NDArray[np.bool_] = ids == special_ids.unk
        unknown += int(np.count_nonzero(is_unknown))
        occurs[code_points("".join(block))] = True
    occurring: list[int] = np.flatnonzero(occurs).tolist()
    distinct = set(map(chr, occurring))
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
