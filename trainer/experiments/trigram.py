"""The baseline: a character trigram model, interpolated with bigrams and unigrams of fixed weights."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.experiments.masks import Sections
from trainer.experiments.text_losses import TextLosses

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
        is_unknown: NDArray[np.bool_] = self._types[ids] != characters
        unknown_before: NDArray[np.int64] = np.concatenate(([0], np.cumsum(is_unknown)))
        p: NDArray[np.float64] = np.zeros(len(ids))
        for n, weight in enumerate(_WEIGHTS, start=1):
            last = np.flatnonzero(start >= n - 1)
            last = last[unknown_before[last + 1] == unknown_before[last + 1 - n]]
            ngrams = self._codes(ids, n)[last]
            joint, context = self._ngrams[n - 1].of(ngrams), self._contexts[n - 1].of(ngrams // len(self._types))
            p[last] += weight * joint / np.maximum(context, 1)
        uniform = _UNIFORM_WEIGHT / max(len(self._types), _MIN_TYPES)
        loss_nats: NDArray[np.float64] = -np.log((1 - _UNIFORM_WEIGHT) * p + uniform)
        loss_nats[start == 0] = np.nan
        return TextLosses(section, start, start + 1, loss_nats, is_unknown)

    def _codes(self, ids: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return a number for the n characters up to each position; the first n - 1 positions have fewer."""
        codes: NDArray[np.int64] = np.zeros(len(ids), dtype=np.int64)
        for back in range(n):
            codes[back:] += ids[: len(ids) - back] * len(self._types) ** back
        return codes


class _Counts:
    """Occurrences by code."""

    def __init__(self, codes: NDArray[np.int64]) -> None:
        before_all: NDArray[np.int64] = np.array([-1], dtype=np.int64)  # so that each code has one at or before it
        self._codes, self._counts = np.unique(np.concatenate((before_all, codes)), return_counts=True)

    def of(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        places = np.searchsorted(self._codes, codes, side="right") - 1
        return np.where(self._codes[places] == codes, self._counts[places], 0)


def _beginning(lines: Iterable[str]) -> str:
    kept: list[str] = []
    characters = 0
    for line in lines:
        kept.append(line)
        characters += len(line) + 1
        if characters > MAX_CHARACTERS:
            break
    return "\n".join(kept)[:MAX_CHARACTERS]
