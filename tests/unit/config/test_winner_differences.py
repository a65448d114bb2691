"""Differences of a study's winner: their errors, the p for the number of finalists, and what has no interval."""

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, variance

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from trainer.config.winner_differences import winner_differences
from trainer.contracts.intervals import LineLosses, holm
from trainer.contracts.studies import SMALLEST_DIFFERENCE

Losses = dict[int, dict[int, LineLosses]]


def tables(finalists: int, seeds: int, lines: int, step: float = 0.1) -> list[NDArray[np.float64]]:
    """Losses per token (seeds, lines) of finalists, each worse than the one before."""
    rng = np.random.default_rng(finalists)
    found: list[NDArray[np.float64]] = []
    for number in range(finalists):
        of_lines: NDArray[np.float64] = rng.normal(0, 0.1, lines)
        of_seeds: NDArray[np.float64] = rng.normal(0, 0.05, (seeds, 1))
        found.append(2 + step * number + of_lines + of_seeds)
    return found


def runs_of(losses: Sequence[NDArray[np.float64]]) -> Losses:
    """Trainings of lines of ten tokens and five characters, by setting and seed."""
    found: Losses = {}
    for number, table in enumerate(losses, 1):
        rows: list[list[float]] = (10 * table).tolist()
        found[number] = {
            seed: LineLosses(nats=tuple(row), tokens=(10,) * len(row), chars=(5,) * len(row))
            for seed, row in enumerate(rows, 43)
        }
    return found


def variances(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """The squared standard errors of a mean difference over lines and over seeds."""
    of_lines, of_seeds = (means(one - other, axis) for axis in (0, 1))
    return variance(of_lines) / len(of_lines), variance(of_seeds) / len(of_seeds)


def means(losses: NDArray[np.float64], axis: int) -> list[float]:
    """The means over seeds (axis 0) or lines (axis 1)."""
    found: list[float] = np.mean(losses, axis=axis).tolist()
    return found


def mean_difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return fmean(means(one - other, 0))


Square = tuple[float, int]
"""A squared standard error, with its degrees of freedom."""


def p_of(value: float, *squares: Square) -> float:
    """The two-sided p of Student's t, with the degrees of freedom of `contracts.intervals.together`."""
    weights = [(square * (1 + 4 / degrees), degrees) for square, degrees in squares]
    degrees = sum(weight for weight, _ in weights) ** 2 / sum(weight**2 / each for weight, each in weights)
    tail: float = stats.t.sf(abs(value) / math.sqrt(sum(square for square, _ in squares)), degrees)
    return 2 * tail


@pytest.mark.parametrize("finalists", [2, 3, 4])
def test_difference__has_the_variance_over_seeds_of_all_pairs_and_p_for_all_pairs(finalists: int) -> None:
    losses = tables(finalists, 3, 40)
    found = winner_differences(runs_of(losses), 1, per_char=False)
    pairs = [*combinations(range(finalists), 2)]
    squares = {pair: variances(losses[pair[0]], losses[pair[1]]) for pair in pairs}
    pooled = sum(of_seeds for _, of_seeds in squares.values()) / len(pairs), 2 * (finalists - 1)
    errors: dict[tuple[int, int], tuple[Square, Square]] = {
        pair: ((of_lines, 39), max((of_seeds, 2), pooled)) for pair, (of_lines, of_seeds) in squares.items()
    }
    p_values = [p_of(mean_difference(losses[pair[0]], losses[pair[1]]), *errors[pair]) for pair in pairs]
    adjusted = dict(zip(pairs, holm(p_values), strict=True))
    assert list(found) == list(range(2, finalists + 1))
    for number, one in found.items():
        assert one.value == pytest.approx(mean_difference(losses[0], losses[number - 1]))
        assert one.p == pytest.approx(adjusted[0, number - 1])
        assert one.low is not None and one.high is not None
        assert (one.low + one.high) / 2 == pytest.approx(one.value)
        half = (one.high - one.low) / 2
        assert p_of(half, *errors[0, number - 1]) == pytest.approx(0.05)


def test_difference__is_of_the_winner_wherever_it_stands_and_in_bits_per_character() -> None:
    losses = tables(2, 3, 40)
    [ahead], [behind] = (winner_differences(runs_of(losses), winner, per_char=True).values() for winner in (1, 2))
    assert ahead.value == pytest.approx(mean_difference(losses[0], losses[1]) * 2 / math.log(2))
    assert (behind.value, behind.low, behind.high, behind.p) == (
        -ahead.value,
        -(ahead.high or 0),
        -(ahead.low or 0),
        ahead.p,
    )
    assert not behind.is_clear, "it is worse"


def test_difference_that_reports_do_not_show__is_none_however_small_its_error() -> None:
    rng = np.random.default_rng(1)
    first, noise = tables(1, 3, 40)[0], 1e-5 * rng.standard_normal((3, 40))
    p_values: list[float | None] = []
    for shift in (0.9 * SMALLEST_DIFFERENCE, 1.1 * SMALLEST_DIFFERENCE):
        [one] = winner_differences(runs_of([first, first + shift + noise]), 1, per_char=False).values()
        p_values.append(one.p)
        assert one.is_clear == (shift > SMALLEST_DIFFERENCE) and one.high is not None and one.high < 0
    assert p_values[0] == 1.0 and (p_values[1] or 1.0) < 0.001


@pytest.mark.parametrize(
    ("seeds", "lines", "noise"), [(1, 40, 0.1), (3, 5, 0.1), (3, 40, 0.0)], ids=["one seed", "few lines", "no noise"]
)
def test_difference__without_two_seeds_six_lines_and_variation_is_not_clear(
    seeds: int, lines: int, noise: float
) -> None:
    [first] = tables(1, seeds, lines)
    other = first + 0.5 + noise * np.random.default_rng(2).standard_normal((seeds, lines))
    [one] = winner_differences(runs_of([first, other]), 1, per_char=False).values()
    assert (one.low, one.high, one.p, one.is_clear) == (None, None, None, False) and one.value < -0.3


def test_finalists_with_other_seeds__have_the_errors_of_their_own_pairs() -> None:
    losses = tables(3, 3, 40)
    runs = runs_of(losses)
    del runs[3][45]
    found = winner_differences(runs, 1, per_char=False)
    squares = variances(losses[0], losses[1]), variances(losses[0][:2], losses[2][:2])
    for (of_lines, of_seeds), degrees, one in zip(squares, (2, 1), found.values(), strict=True):
        half = ((one.high or 0.0) - (one.low or 0.0)) / 2
        assert p_of(half, (of_lines, 39), (of_seeds, degrees)) == pytest.approx(0.05)


def test_single_finalist__has_no_difference() -> None:
    assert winner_differences(runs_of(tables(1, 3, 40)), 1, per_char=False) == {}
