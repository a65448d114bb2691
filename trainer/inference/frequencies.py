"""Log frequencies of words and of tokens in the training text of a run."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from math import fsum
from typing import NamedTuple, TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray

from trainer.contracts.errors import AppError
from trainer.data.text import plain_words
from trainer.tokenizers.base import Tokenizer

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_Numbers: TypeAlias = "NDArray[np.int64]"
_MERGED_NUMBERS = 1 << 22
"""Occurrences that are held before they are counted."""


class Counts(NamedTuple):
    """Occurrences of types, which are hashes of words or ids of tokens."""

    types: _Numbers
    """In ascending order; empty without a text."""
    occurrences: _Numbers

    def with_more(self, numbers: Sequence[_Numbers]) -> "Counts":
        """Count further occurrences."""
        more: _Numbers = np.concatenate(numbers)
        weights: _Numbers = np.concatenate((self.occurrences, np.ones(len(more), dtype=np.int64)))
        types, places = np.unique(np.concatenate((self.types, more)), return_inverse=True)
        occurrences: _Numbers = np.bincount(places, weights).astype(np.int64)
        return Counts(types, occurrences)

    def log_frequencies(self, units: Sequence[Sequence[int]]) -> list[float | None]:
        """Return the sum of the log frequencies of the types in each unit; None for a unit without types.

        The log frequency of a type is ln((occurrences + 1) / (all occurrences + number of types)), so that a type
        which does not occur has one too (van Heuven et al. 2014).
        """
        if not len(self.types):
            return [None] * len(units)
        numbers: list[int] = [number for unit in units for number in unit]
        wanted: _Numbers = np.array(numbers, dtype=np.int64)
        places: NDArray[np.intp] = np.searchsorted(self.types[:-1], wanted)
        is_there: NDArray[np.bool_] = self.types[places] == wanted
        found: _Numbers = self.occurrences[places] * is_there
        total = int(np.sum(self.occurrences)) + len(self.types)
        shares: NDArray[np.float64] = np.true_divide(found + 1, total)
        logs: list[float] = np.log(shares).tolist()
        rest = iter(logs)
        return [fsum(islice(rest, len(unit))) if unit else None for unit in units]


_NONE = Counts(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


class Frequencies:
    """Reads the training text of a run when its frequencies are first needed, and keeps its counts.

    Words are between white space, without case and without the punctuation at their ends.
    """

    def __init__(self, tokenizer: Tokenizer, lines: Callable[[], Iterable[str]] | None = None) -> None:
        """Take a function that returns the training text in blocks of normalized lines, if there is one."""
        self._tokenizer = tokenizer
        self._lines = lines
        self._words: Counts | None = None
        self._tokens: Counts | None = None

    @property
    def memory_bytes(self) -> int:
        return sum(counts.types.nbytes + counts.occurrences.nbytes for counts in (self._words, self._tokens) if counts)

    @property
    def has_text(self) -> bool:
        """True if a training text has been read."""
        return any(len(counts.types) for counts in (self._words, self._tokens) if counts)

    def of_texts(self, texts: Sequence[str]) -> list[float | None]:
        """Return the sum of the log frequencies of each text's words; None without words, or without the text."""
        if self._words is None:
            self._words = self._count(_word_numbers)
        return self._words.log_frequencies([_word_hashes(text) for text in texts])

    def of_tokens(self, units: Sequence[Sequence[int]]) -> list[float | None]:
        """Return the sum of the log frequencies of the tokens in each unit; None without the training text."""
        if self._tokens is None:
            self._tokens = self._count(self._token_ids)
        return self._tokens.log_frequencies(units)

    def _count(self, numbers_of: Callable[[str], _Numbers]) -> Counts:
        """Count what the training text has; nothing where it is gone or has changed since the training."""
        counts, held = _NONE, [_NONE.types]
        try:
            for block in () if self._lines is None else self._lines():
                held.append(numbers_of(block))
                if sum(map(len, held)) >= _MERGED_NUMBERS:
                    counts, held = counts.with_more(held), [_NONE.types]
        except AppError as error:
            log.warning("training_text_not_found", error_code=error.code)
        return counts.with_more(held)

    def _token_ids(self, lines: str) -> _Numbers:
        """Return the tokens of lines, without those that stand for no text."""
        special = self._tokenizer.special_ids
        ids: _Numbers = self._tokenizer.encode_documents(lines).astype(np.int64)
        others = [special.eos] if special.bos is None else [special.eos, special.bos]
        is_text: NDArray[np.bool_] = np.isin(ids, others, invert=True)
        of_text: _Numbers = ids[is_text]
        return of_text


def _word_numbers(lines: str) -> _Numbers:
    return np.array(_word_hashes(lines), dtype=np.int64)


def _word_hashes(lines: str) -> list[int]:
    return [hash(word) for word in plain_words(lines) if word]
