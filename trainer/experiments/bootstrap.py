"""Paired bootstrap over sections: 95 % intervals from the resamples that Python's `random` draws.

The resamples are those of `random.Random(seed)` with n draws of `randrange(n)` each, so that anybody can draw them
again in plain Python. Here NumPy's generator draws the same numbers, some hundred times as fast.
"""

from collections import defaultdict
from collections.abc import Sequence
from math import ceil, floor
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.intervals import Interval

RESAMPLES = 2000
LOW = floor(0.025 * (RESAMPLES - 1))
HIGH = ceil(0.975 * (RESAMPLES - 1))
"""Positions of the ends of the interval among the sorted values of all resamples."""
_DRAWS_AT_ONCE = 2_000_000  # 16 MB per array


class Pooled(NamedTuple):
    """Sums of losses and numbers of scored positions of the sections of a text. Their ratio is a cross-entropy."""

    loss_sum: NDArray[np.float64]
    n_scored: NDArray[np.float64]


class Difference(NamedTuple):
    """The difference of two pooled cross-entropies over the same sections."""

    plus: Pooled
    minus: Pooled


class Statistic(NamedTuple):
    """A sum of differences, each over the sections of another text, and the seed of its resamples."""

    seed: int
    differences: tuple[Difference, ...]


def intervals(statistics: Sequence[Statistic]) -> list[Interval]:
    """Return the 95 % interval of each statistic.

    Each resample draws sections of the first difference's text, then of the second's. Statistics with the same seed
    and the same numbers of sections share their resamples.
    """
    groups: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    for position, (seed, differences) in enumerate(statistics):
        groups[seed, tuple(len(each.plus.loss_sum) for each in differences)].append(position)
    found: dict[int, Interval] = {}
    for (seed, sizes), positions in groups.items():
        values = np.sort(_resampled(seed, sizes, [statistics[i].differences for i in positions]), axis=0)
        ends: list[list[float]] = values[[LOW, HIGH]].T.tolist()
        for position, (low, high) in zip(positions, ends, strict=True):
            found[position] = Interval(low=low, high=high)
    return [found[position] for position in range(len(statistics))]


def _resampled(seed: int, sizes: tuple[int, ...], statistics: Sequence[tuple[Difference, ...]]) -> NDArray[np.float64]:
    """Return the values of statistics in all resamples; shape (RESAMPLES, statistics)."""
    columns: list[NDArray[np.float64]] = [
        np.stack([column for differences in statistics for pooled in differences[sample] for column in pooled], axis=1)
        for sample in range(len(sizes))
    ]  # (sections, 4 * statistics) of each sample
    stream = IndexStream(seed)
    values: NDArray[np.float64] = np.zeros((RESAMPLES, len(statistics)))
    step = max(1, _DRAWS_AT_ONCE // sum(sizes))
    for first in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - first)
        for indices, scores in zip(stream.draw(sizes, count), columns, strict=True):
            sums: NDArray[np.float64] = _multiplicities(indices) @ scores
            plus, n_plus, minus, n_minus = sums.reshape(count, len(statistics), 4).transpose(2, 0, 1)
            values[first : first + count] += plus / n_plus - minus / n_minus
    return values


def _multiplicities(indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how often each of n sections is in each resample, from resampled indices of shape (resamples, n)."""
    count, n = len(indices), len(indices.T)
    rows: NDArray[np.int64] = n * np.arange(count, dtype=np.int64)
    cells: NDArray[np.int64] = indices + rows[:, None]
    return np.bincount(cells.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


class IndexStream:
    """The indices that `random.Random(seed)` draws with `randrange`."""

    def __init__(self, seed: int) -> None:
        state: tuple[int, tuple[int, ...], float | None] = Random(seed).getstate()  # noqa: S311  no secret
        *key, position = state[1]
        twister = np.random.MT19937()
        twister.state = {
            "bit_generator": "MT19937",
            "state": {"key": np.array(key, dtype=np.uint32), "pos": position},
        }
        self._generator = np.random.Generator(twister)
        self._words: NDArray[np.uint32] = np.empty(0, dtype=np.uint32)

    def draw(self, sizes: Sequence[int], count: int) -> list[NDArray[np.int64]]:
        """Return the indices of `count` resamples of each sample, of shape (count, size).

        A resample is `size` draws of `randrange(size)` for each sample in turn. As `randrange` does, each draw takes
        the upper bits of a 32-bit word, as many as the size has, and then of the next word until they are below it.
        """
        self._extend(count * sum(1 << size.bit_length() for size in sizes) * 51 // 50)  # the expected number and 2 %
        while True:
            bits = [self._upper_bits(size) for size in sizes]
            accepted = [np.flatnonzero(each < size) for each, size in zip(bits, sizes, strict=True)]
            words = _words_in_turn(accepted, sizes, count)
            if words is not None:
                break
            self._extend(len(self._words))
        self._words = self._words[words[-1].item(-1) + 1 :]
        drawn: list[NDArray[np.int64]] = []
        for each, places in zip(bits, words, strict=True):
            indices: NDArray[np.int64] = each[places].astype(np.int64)
            drawn.append(indices)
        return drawn

    def _extend(self, count: int) -> None:
        words: NDArray[np.uint32] = self._generator.integers(0, 1 << 32, size=count, dtype=np.uint32)
        self._words = np.concatenate((self._words, words))

    def _upper_bits(self, size: int) -> NDArray[np.uint32]:
        """Return as many upper bits of each word as the size has."""
        bits: NDArray[np.uint32] = self._words >> np.uint32(32 - size.bit_length())
        return bits


def _words_in_turn(
    accepted: Sequence[NDArray[np.int64]], sizes: Sequence[int], count: int
) -> list[NDArray[np.int64]] | None:
    """Return the accepted words that each resample of each sample takes; None if there are too few.

    Samples of different sizes accept different words, so that only a walk along the words tells where each starts.
    """
    if len(set(sizes)) == 1:
        needed = count * sum(sizes)
        in_turn = accepted[0][:needed]
        return list(in_turn.reshape(count, len(sizes), -1).swapaxes(0, 1)) if len(in_turn) == needed else None
    words: list[NDArray[np.int64]] = [np.empty((count, size), dtype=np.int64) for size in sizes]
    next_word = 0
    for resample in range(count):
        for places, size, taken in zip(accepted, sizes, words, strict=True):
            start = int(places.searchsorted(next_word))
            if start + size > len(places):
                return None
            taken[resample] = places[start : start + size]
            next_word = places.item(start + size - 1) + 1
    return words
