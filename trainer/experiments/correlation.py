"""Correlation of excess cross-entropy with human ratings, tested by permuting languages (Mantel test, QAP).

The ordered pairs of a few languages are not independent: each language is in many pairs. A permutation therefore moves
languages, which are the rows and the columns of the matrix of excesses, and leaves the ratings where they are.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.base import changed
from trainer.contracts.experiments import (
    Correlation,
    CorrelationKind,
    PairSet,
    PrimaryTest,
    Rating,
    ScoringMode,
    TextKind,
)
from trainer.contracts.intervals import holm

MAX_ENUMERATED_LANGUAGES = 8
DRAWN_PERMUTATIONS = 100_000
_MIN_PAIRS = 3
_TOLERANCE = 1e-9
"""Relative difference up to which two correlations are equal: their sums are rounded."""
_VALUES_AT_ONCE = 2_000_000  # 16 MB per array

Values: TypeAlias = "NDArray[np.float64]"
Indices: TypeAlias = "NDArray[np.int64]"


class ExcessTable(NamedTuple):
    """The excess cross-entropy of one model on one kind of text in one mode, for every ordered pair of languages."""

    model: str
    kind: TextKind
    mode: ScoringMode
    excess: Mapping[tuple[str, str], float]


class _RatedPairs(NamedTuple):
    """Rated pairs of different languages, and the permutations of the languages that are in them."""

    name: PairSet
    pairs: Sequence[tuple[str, str]]
    languages: Sequence[str]
    ratings: Sequence[float]
    permutations: Indices
    """Shape (permutations, languages); the first is the identity."""
    is_complete: bool
    """The pairs are all of their kind between these languages, so that each permutation has the same excesses."""


def correlations(
    tables: Sequence[ExcessTable], ratings: Sequence[Rating], branches: Mapping[str, str], primary: PrimaryTest
) -> tuple[Correlation, ...]:
    """Correlate each table with the ratings: both statistics, over all rated pairs and without pairs within a branch.

    All tables have the same languages. `primary` names one test with all of its fields. The other tests are
    exploratory and have p-values adjusted for their number (Holm 1979). Fewer than three pairs, or the same number for
    all pairs, have no correlation.
    """
    rated = {(rating.listener, rating.language): rating.mean_rating for rating in ratings}
    languages = sorted({language for pair in tables[0].excess for language in pair})
    shared = {branch for branch, count in Counter(branches[a] for a in languages if a in branches).items() if count > 1}
    blocks = {language: branches[language] for language in languages if branches.get(language) in shared}
    sets = [_rated_pairs("all", languages, {}, rated)]
    if blocks:
        sets.append(_rated_pairs("across_branches", languages, blocks, rated))
    statistics: tuple[CorrelationKind, ...] = ("pearson", "spearman")
    found = [_correlation(table, chosen, each, primary) for table in tables for each in statistics for chosen in sets]
    exploratory = {place: row.p for place, row in enumerate(found) if row.p is not None and not row.is_primary}
    adjusted = dict(zip(exploratory, holm(list(exploratory.values())), strict=True))
    return tuple(changed(row, p_holm=adjusted.get(place)) for place, row in enumerate(found))


def _rated_pairs(
    name: PairSet, languages: Sequence[str], blocks: Mapping[str, str], rated: Mapping[tuple[str, str], float]
) -> _RatedPairs:
    """Return the rated pairs whose languages are not in one block."""

    def is_wanted(a: str, b: str) -> bool:
        return a != b and (a not in blocks or blocks[a] != blocks.get(b))

    pairs = [(a, b) for a in languages for b in languages if is_wanted(a, b) and (a, b) in rated]
    used = sorted({language for pair in pairs for language in pair})
    return _RatedPairs(
        name,
        pairs,
        used,
        [rated[pair] for pair in pairs],
        language_permutations([blocks.get(a, a) if blocks else "" for a in used]),
        len(pairs) == sum(is_wanted(a, b) for a in used for b in used),
    )


def language_permutations(blocks: Sequence[str]) -> Indices:
    """Return permutations of languages that keep the languages of each block in one block; the first is the identity.

    All of them for up to MAX_ENUMERATED_LANGUAGES languages; for more, the identity and DRAWN_PERMUTATIONS that are
    drawn with a fixed seed. `blocks` has the block of each language; shape (permutations, languages).
    """
    n = len(blocks)
    if n <= MAX_ENUMERATED_LANGUAGES:
        orders: list[tuple[int, ...]] = list(permutations(range(n)))
        every: Indices = np.array(orders, dtype=np.int64)
        same: list[list[bool]] = [[a == b for a in blocks] for b in blocks]
        is_same: NDArray[np.bool_] = np.array(same, dtype=np.bool_).reshape(n, n)
        moved: NDArray[np.bool_] = is_same[every[:, :, None], every[:, None, :]]
        kept: NDArray[np.bool_] = np.all(np.equal(moved, is_same), axis=(1, 2))
        found: Indices = every[kept]
        return found
    by_size: dict[int, list[list[int]]] = defaultdict(list)
    for block in sorted({*blocks}):
        members = [place for place, other in enumerate(blocks) if other == block]
        by_size[len(members)].append(members)
    generator = np.random.default_rng(0)
    drawn: Indices = np.tile(np.arange(n, dtype=np.int64), (DRAWN_PERMUTATIONS + 1, 1))
    for of_size in by_size.values():
        places: Indices = np.array(of_size, dtype=np.int64)
        order: Indices = generator.random((DRAWN_PERMUTATIONS, len(places))).argsort(axis=1)
        within: Indices = generator.random((DRAWN_PERMUTATIONS, len(of_size), len(of_size[0]))).argsort(axis=2)
        taken: Indices = np.take_along_axis(places[order], within, axis=2)
        drawn[1:, places.ravel()] = taken.reshape(DRAWN_PERMUTATIONS, -1)
    return drawn


def _correlation(
    table: ExcessTable, chosen: _RatedPairs, statistic: CorrelationKind, primary: PrimaryTest
) -> Correlation:
    found = _tested(table.excess, chosen, statistic)
    test = PrimaryTest(model=table.model, kind=table.kind, mode=table.mode, statistic=statistic, pairs=chosen.name)
    return Correlation(
        model=table.model,
        kind=table.kind,
        mode=table.mode,
        statistic=statistic,
        pairs=chosen.name,
        n_languages=len(chosen.languages),
        n_pairs=len(chosen.pairs),
        n_permutations=len(chosen.permutations),
        r=None if found is None else found[0],
        p=None if found is None else found[1],
        p_holm=None,
        is_primary=test == primary,
    )


def _tested(
    excess: Mapping[tuple[str, str], float], chosen: _RatedPairs, statistic: CorrelationKind
) -> tuple[float, float] | None:
    """Return the correlation and its two-sided p: the share of permutations with a correlation at least as large.

    A permutation that puts equal excesses on all rated pairs has no correlation. It counts as one at least as large,
    so that p is never too small.
    """
    n = len(chosen.languages)
    place = {language: number for number, language in enumerate(chosen.languages)}
    cells: list[float] = [excess.get((a, b), 0.0) for a in chosen.languages for b in chosen.languages]
    matrix: Values = np.array(cells, dtype=np.float64)
    listeners: list[int] = [place[a] for a, _ in chosen.pairs]
    texts: list[int] = [place[b] for _, b in chosen.pairs]
    rated_cells: list[int] = [n * a + b for a, b in zip(listeners, texts, strict=True)]
    observed = [cells[cell] for cell in rated_cells]
    if len(observed) < _MIN_PAIRS or len({*observed}) == 1 or len({*chosen.ratings}) == 1:
        return None
    ratings: Values = np.array(chosen.ratings, dtype=np.float64)
    has_ranks = statistic == "spearman"
    if has_ranks:
        ratings = _ranks(ratings)
    if has_ranks and chosen.is_complete:
        ranks: Values = _ranks(np.array(observed, dtype=np.float64))
        matrix[rated_cells] = ranks
    mean: np.float64 = ratings.mean()
    parts: list[Values] = []
    step = max(1, _VALUES_AT_ONCE // len(observed))
    for first in range(0, len(chosen.permutations), step):
        moved: Indices = chosen.permutations[first : first + step].T
        moved_cells: Indices = n * moved[listeners] + moved[texts]
        values: Values = matrix[moved_cells]
        if has_ranks and not chosen.is_complete:
            values = _ranks(values)
        parts.append(_with_ratings(values, ratings - mean))
    r: Values = np.concatenate(parts)
    found = r.item(0)
    is_smaller: NDArray[np.bool_] = np.abs(r) < abs(found) * (1 - _TOLERANCE)  # not true of not a number
    return found, (len(r) - int(np.count_nonzero(is_smaller))) / len(r)


def _ranks(values: Values) -> Values:
    """Return the ranks along the first axis, from 1; equal values share the mean of their ranks."""
    ranks: list[Values] = []
    for place in range(len(values)):
        row: Values = values[place]
        is_below: NDArray[np.bool_] = np.less(values, row)
        is_equal: NDArray[np.bool_] = np.equal(values, row)
        weights: Values = is_below + is_equal.astype(np.float64) / 2
        sums: Values = np.sum(weights, axis=0)
        ranks.append(sums + 0.5)
    return np.array(ranks)


def _with_ratings(values: Values, ratings: Values) -> Values:
    """Return the correlation of each column of values with ratings of mean 0; not a number for equal values."""
    mean: Values = values.mean(axis=0)
    deviations: Values = values - mean
    sums: Values = ratings @ deviations
    squares: Values = np.sum(np.square(deviations), axis=0)
    total: np.float64 = np.sum(np.square(ratings))
    scale: Values = np.sqrt(squares * total)
    is_varied: NDArray[np.bool_] = np.any(np.not_equal(values, values[:1]), axis=0)
    found: Values = np.full(len(sums), np.nan)
    np.divide(sums, scale, out=found, where=is_varied)
    return np.clip(found, -1.0, 1.0)
