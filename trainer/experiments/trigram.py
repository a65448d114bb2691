"""The baseline: a character trigram model, interpolated with bigrams and unigrams of fixed weights."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.experiments.sections import Sections, TextLosses

MAX_CHARACTERS = 4_000_000
_WEIGHTS = (0.05, 0.25, 0.70)  # of unigrams, bigrams and trigrams
_UNIFORM_WEIGHT = 0.001
_MIN_TYPES = 100


class Trigram:
    """Character trigram model of a training text: its lines joined by newlines, at most MAX_CHARACTERS.

    p = 0.05 p1 + 0.25 p2 + 0.70 p3. A part is 0 after a context that no character of the training text follows, and
    where a section has too few characters before. The probability of a character is 0.999 p + 0.001 / max(types, 100);
    types is the number of different characters in the training text.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        text = Sections.of([_beginning(lines)]).characters
        self._types: NDArray[np.uint32] = np.unique(text)
        ids: NDArray[np.int64] = np.searchsorted(self._types, text).astype(np.int64)
        self._ngrams: list[_Counts] = []
        self._contexts: list[_Counts] = []
        for n in range(1, len(_WEIGHTS) + 1):
            ngrams = self._codes(ids, n)[n - 1 :]
            self._ngrams.append(_Counts(ngrams))
            self._contexts.append(_Counts(ngrams // len(self._types)))

    @property
    def characters(self) -> set[str]:
        codes: list[int] = self._types.tolist()
        return set(map(chr, codes))

    def losses(self, lines: Sequence[str]) -> TextLosses:
        """Return the losses of all characters of sections; characters outside the training text are unknown."""
        characters, starts = Sections.of(lines)
        section: NDArray[np.int64] = np.repeat(np.arange(len(lines), dtype=np.int64), np.diff(starts))
        start: NDArray[np.int64] = np.arange(len(section), dtype=np.int64) - starts[section]
        ids: NDArray[np.int64] = (np.searchsorted(self._types, characters, side="right") - 1).astype(np.int64)
        is_unknown: NDArray[np.bool_] = np.not_equal(self._types[ids], characters)
        unknown_before: NDArray[np.int64] = np.concatenate(([0], np.cumsum(is_unknown)))
        p: NDArray[np.float64] = np.zeros(len(ids))
        for n, weight in enumerate(_WEIGHTS, start=1):
            behind: NDArray[np.int64] = np.flatnonzero(start >= n - 1) + 1
            behind = behind[np.equal(unknown_before[behind], unknown_before[behind - n])]
            ngrams = self._codes(ids, n)[behind - 1]
            context = np.maximum(self._contexts[n - 1].of(ngrams // len(self._types)), 1)
            share: NDArray[np.float64] = np.divide(self._ngrams[n - 1].of(ngrams), context, dtype=np.float64)
            p[behind - 1] += weight * share
        p = (1 - _UNIFORM_WEIGHT) * p + _UNIFORM_WEIGHT / max(len(self._types), _MIN_TYPES)
        loss_nats: NDArray[np.float64] = np.negative(np.log(p))
        loss_nats[np.equal(start, 0)] = np.nan
        return TextLosses(section, start, start + 1, loss_nats, is_unknown)

    def _codes(self, ids: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return a number for the n characters up to each position; the first n - 1 positions have fewer."""
        codes: NDArray[np.int64] = np.zeros(len(ids), dtype=np.int64)
        weight = 1
        for back in range(n):
            earlier: NDArray[np.int64] = weight * ids[: len(ids) - back]
            codes[back:] += earlier
            weight *= len(self._types)
        return codes


class _Counts:
    """Occurrences by code."""

    def __init__(self, codes: NDArray[np.int64]) -> None:
        self._codes: NDArray[np.int64]
        self._counts: NDArray[np.int64]
        padded: NDArray[np.int64] = np.append(codes, np.int64(-1))  # so that no code is before all others
        self._codes, self._counts = np.unique(padded, return_counts=True)

    def of(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        places = np.searchsorted(self._codes, codes, side="right") - 1
        return np.multiply(self._counts[places], np.equal(self._codes[places], codes))


def _beginning(lines: Iterable[str]) -> str:
    kept: list[str] = []
    characters = 0
    for line in lines:
        kept.append(line)
        characters += len(line) + 1
        if characters > MAX_CHARACTERS:
            break
    return "\n".join(kept)[:MAX_CHARACTERS]
