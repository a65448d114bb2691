"""95 % intervals of losses: closed forms, and how often they cover the true difference."""

import math
from statistics import stdev

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t

from trainer.contracts.intervals import LineLosses, Ratio, StandardError, holm, margin, t_quantile


def quantile(degrees: float) -> float:
    return float(t.ppf(0.975, degrees))


@pytest.mark.parametrize("degrees", [1.0, 1.02, 1.5, 2.0, 2.9, 3.0, 4.0, 4.99, 5.0, 5.5, 8.0, 20.0, 199.0])
def test_quantile__is_that_of_student(degrees: float) -> None:
    assert t_quantile(degrees) == pytest.approx(quantile(degrees), rel=1e-9)


@pytest.mark.parametrize("number", [0.0, 0.01, -1.0, 2.0, 7.0, -300.0])
@pytest.mark.parametrize("degrees", [1.0, 1.02, 1.5, 4.0, 39.0, 199.0])
def test_p__is_that_of_student(number: float, degrees: float) -> None:
    assert StandardError(0.5, degrees).p(number) == pytest.approx(2 * float(t.sf(abs(number) / 0.5, degrees)), rel=1e-9)
    assert StandardError(0.0, degrees).p(number) == (0.0 if number else 1.0)


def test_holm__adjusts_by_the_tests_that_are_left() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_interval_of_equally_long_lines__is_the_paired_t_interval() -> None:
    mine, its = [21.0, 18.5, 20.0, 22.5, 19.0, 17.0, 23.0, 20.5], [20.0, 18.0, 21.0, 21.0, 18.0, 17.5, 21.0, 20.0]
    tokens, n = [10] * 8, 8
    differences = [(one - other) / 10 for one, other in zip(mine, its, strict=True)]
    found, alone = margin((mine, tokens), (its, tokens)), margin((mine, tokens))
    assert found == pytest.approx(quantile(n - 1) * stdev(differences) / math.sqrt(n), rel=1e-4)
    assert alone == pytest.approx(quantile(n - 1) * stdev(mine) / 10 / math.sqrt(n), rel=1e-4)


def test_interval__is_a_point_without_differences_and_none_of_few_lines() -> None:
    same: Ratio = [3.0, 2.0, 5.0, 9.0, 1.0, 4.0, 4.5, 5.5], [2, 2, 3, 3, 2, 2, 3, 3]
    assert margin(same, same) == margin(([1.0] * 6, [1] * 6)) == 0.0
    assert margin(([1.0] * 5, [1] * 5)) is None, "too few"
    assert margin(([1.0] * 20, [1000, *[1] * 19])) is None, "too unequal"


COVERED = [(50, 0.0, "tokens"), (50, 0.7, "tokens"), (50, 0.7, "chars"), (1000, 0.7, "tokens")]


@pytest.mark.parametrize(("lines", "spread", "divisor"), COVERED)
def test_interval__covers_the_true_difference_in_95_percent_of_pairs(lines: int, spread: float, divisor: str) -> None:
    """Lines differ in length (log-normal), in difficulty, which both models share, and in what one model gains."""
    random = np.random.Generator(np.random.PCG64(7))
    gain, covered = 0.02, 0
    for _ in range(400):
        tokens: NDArray[np.int64] = np.maximum(1, np.round(np.exp(random.normal(3, spread, lines)))).astype(np.int64)
        shared: NDArray[np.float64] = 2 * tokens + np.sqrt(tokens) * random.normal(0, 1, lines)
        gains: NDArray[np.float64] = tokens * (gain + 0.05 * (random.exponential(1, lines) - 1))
        gains += np.sqrt(tokens) * random.normal(0, 0.2, lines)
        mine, its = (grouped(nats, tokens) for nats in (shared + gains, shared))
        pair: list[Ratio] = [(one.nats, one.tokens if divisor == "tokens" else one.chars) for one in (mine, its)]
        half = margin(*pair)
        assert half is not None
        weight = 1 if divisor == "tokens" else 2  # characters per token
        found = (sum(mine.nats) - sum(its.nats)) / sum(pair[0][1])
        covered += abs(found - gain / weight) <= half
    assert 0.93 <= covered / 400 <= 0.97


def grouped(nats: NDArray[np.float64], tokens: NDArray[np.int64]) -> LineLosses:
    """The losses of lines in at most 200 groups of consecutive lines; every token has two characters."""
    step = max(1, len(nats) // 200)
    starts: NDArray[np.int64] = np.arange(0, len(nats), step)
    sums: list[float] = np.add.reduceat(nats, starts).tolist()
    counts: list[int] = np.add.reduceat(tokens, starts).tolist()
    return LineLosses(nats=tuple(sums), tokens=tuple(counts), chars=tuple(2 * count for count in counts))
