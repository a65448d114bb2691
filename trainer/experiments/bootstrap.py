"""Paired bootstrap over seeds and sections: 95 % intervals from the resamples that Python's `random` draws.

A resample draws n sections of a text with n draws of `randrange(n)` from `random.Random(seed)`. If the models have
S > 1 seeds, it also draws S seeds for the first model of a difference and then S for the second, each with
`randrange(S)` from a second stream, `random.Random(2**32 + seed)`. The loss sum of a section is the mean over the drawn
seeds. With one seed only sections are drawn. So anybody can draw the resamples again in plain Python. Here NumPy's
generator draws the same numbers, some hundred times as fast.
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
SEED_STREAM = 2**32
"""Added to a statistic's seed, it is the seed of the stream that draws the models' seeds."""
_NUMBERS_AT_ONCE = 2_000_000  # 16 MB per array


class Pooled(NamedTuple):
    """Sums of losses and numbers of scored positions of the sections of a text. Their ratio is a cross-entropy."""

    loss_sum: NDArray[np.float64]
    """Shape (seeds, sections)."""
    n_scored: NDArray[np.float64]


class Difference(NamedTuple):
    """The difference of the pooled cross-entropies of two models over the same sections, with as many seeds each."""

    plus: Pooled
    minus: Pooled


class Statistic(NamedTuple):
    """A sum of differences of the same two models, each over the sections of another text, and the resamples' seed."""

    seed: int
    differences: tuple[Difference, ...]
    are_seeds_linked: bool = False
    """The models of one seed depend on each other: both use the S seeds that are drawn for the first."""


def intervals(statistics: Sequence[Statistic]) -> list[Interval]:
    """Return the 95 % interval of each statistic.

    Each resample draws sections of the first difference's text, then of the second's. Statistics with the same seed
    and the same numbers of sections and seeds share their resamples.
    """
    groups: dict[_Draws, list[int]] = defaultdict(list)
    for position, (seed, differences, are_linked) in enumerate(statistics):
        sizes = tuple(len(each.plus.n_scored) for each in differences)
        groups[_Draws(seed, sizes, len(differences[0].plus.loss_sum), are_linked)].append(position)
    found: dict[int, Interval] = {}
    for draws, positions in groups.items():
        values = np.sort(_resampled(draws, [statistics[i].differences for i in positions]), axis=0)
        ends: list[list[float]] = values[[LOW, HIGH]].T.tolist()
        for position, (low, high) in zip(positions, ends, strict=True):
            found[position] = Interval(low=low, high=high)
    return [found[position] for position in range(len(statistics))]


class _Draws(NamedTuple):
    """The draws of a statistic's resamples; statistics with equal ones share their resamples."""

    seed: int
    sizes: tuple[int, ...]
    """Number of sections of each text."""
    n_seeds: int
    are_seeds_linked: bool


def _resampled(draws: _Draws, statistics: Sequence[tuple[Difference, ...]]) -> NDArray[np.float64]:
    """Return the values of statistics in all resamples; shape (RESAMPLES, statistics)."""
    sizes = draws.sizes
    columns: list[NDArray[np.float64]] = [
        np.concatenate(
            [
                columns_of_model
                for differences in statistics
                for pooled in differences[sample]
                for columns_of_model in (pooled.loss_sum.T, pooled.n_scored[:, None])
            ],
            axis=1,
        )
        for sample in range(len(sizes))
    ]  # (sections, statistics * 2 models * (seeds + 1)) of each sample
    stream, seed_stream = IndexStream(draws.seed), IndexStream(SEED_STREAM + draws.seed)
    values: NDArray[np.float64] = np.zeros((RESAMPLES, len(statistics)))
    step = max(1, _NUMBERS_AT_ONCE // max(sum(sizes), len(columns[0].T)))
    for first in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - first)
        shares = _seed_shares(seed_stream, draws, count)
        for indices, scores in zip(stream.draw(sizes, count), columns, strict=True):
            sums: NDArray[np.float64] = _multiplicities(indices) @ scores
            by_model: NDArray[np.float64] = sums.reshape(count, len(statistics), 2, draws.n_seeds + 1)
            losses: NDArray[np.float64] = np.sum(by_model[..., :-1] * shares[:, None], axis=3)
            cross_entropies: NDArray[np.float64] = losses / by_model[..., -1]
            values[first : first + count] += cross_entropies[..., 0] - cross_entropies[..., 1]
    return values


def _seed_shares(stream: "IndexStream", draws: _Draws, count: int) -> NDArray[np.float64]:
    """Return the share of each seed among the drawn ones; shape (resamples, 2 models, seeds)."""
    if draws.n_seeds == 1:
        return np.ones((count, 2, 1))
    drawn = stream.draw([draws.n_seeds] * (1 if draws.are_seeds_linked else 2), count)
    shares: NDArray[np.float64] = np.stack([_multiplicities(drawn[0]), _multiplicities(drawn[-1])], axis=1)
    return shares / draws.n_seeds


def _multiplicities(indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how often each of n indices is in each resample, from resampled indices of shape (resamples, n)."""
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
