"""95 % intervals of losses: closed forms, and how often they cover the true difference."""

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import nct, norm, t

from trainer.contracts.intervals import (
    LineLosses,
    Ratio,
    StandardError,
    hedges_correction,
    holm,
    loss_difference,
    margin,
    t_quantile,
    together,
)
from trainer.reports.report_text import ENGLISH


def quantile(degrees: float) -> float:
    return float(t.ppf(0.975, degrees))


@pytest.mark.parametrize("degrees", [1.0, 1.02, 1.5, 2.0, 2.9, 3.0, 4.0, 4.99, 5.0, 5.5, 8.0, 20.0, 199.0])
def test_quantile__equals_student(degrees: float) -> None:
    assert t_quantile(degrees) == pytest.approx(quantile(degrees), rel=1e-9)


@pytest.mark.parametrize("number", [0.0, 0.01, -1.0, 2.0, 7.0, -300.0])
@pytest.mark.parametrize("degrees", [1.0, 1.02, 1.5, 4.0, 39.0, 199.0])
def test_p__equals_student(number: float, degrees: float) -> None:
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
    found, alone = margin((mine, tokens), (its, tokens), is_drawn=True), margin((mine, tokens), is_drawn=True)
    assert found == pytest.approx(quantile(n - 1) * stdev(differences) / math.sqrt(n), rel=1e-4)
    assert alone == pytest.approx(quantile(n - 1) * stdev(mine) / 10 / math.sqrt(n), rel=1e-4)


def test_interval__is_a_point_without_differences_and_none_of_few_lines() -> None:
    for is_drawn, least in ((True, 6), (False, 60)):
        same: Ratio = [3.0, 2.0, 5.0, 9.0, 1.0, 4.0] * 10, [2, 2, 3, 3, 2, 2] * 10
        assert margin(same, same, is_drawn=is_drawn) == margin(([1.0] * least, [1] * least), is_drawn=is_drawn) == 0.0
        assert margin(([1.0] * (least - 1), [1] * (least - 1)), is_drawn=is_drawn) is None, "too few"
        assert margin(([1.0] * 60, [1000, *[1] * 59]), is_drawn=is_drawn) is None, "too unequal"
    assert margin(([], []), is_drawn=True) is None


def test_together__has_degrees_near_those_of_the_source_with_few() -> None:
    both = together(StandardError(0.3, 10), StandardError(0.4, 4))
    enlarged = 0.3**2 * (1 + 4 / 10), 0.4**2 * (1 + 4 / 4)
    assert both.value == pytest.approx(0.5)
    assert both.degrees == pytest.approx(sum(enlarged) ** 2 / (enlarged[0] ** 2 / 10 + enlarged[1] ** 2 / 4))
    assert together(StandardError(0.0, 10), StandardError(0.0, 4)) == (0.0, 10)
    assert together(StandardError(0.2, 10), StandardError(0.0, 1)) == together(StandardError(0.2, 10)) == (0.2, 10)


@pytest.mark.parametrize("degrees", [2, 3, 8, 50])
def test_correction__makes_the_mean_effect_size_the_true_one(degrees: int) -> None:
    """The mean of a noncentral t with noncentrality sqrt(n) d is d sqrt(n) by the correction."""
    mean = float(nct.mean(degrees, 0.7))
    assert hedges_correction(degrees) * mean == pytest.approx(0.7, rel=1e-6)


def runs_of(losses: NDArray[np.float64], first_seed: int = 1) -> dict[int, LineLosses]:
    """Trainings with mean losses (seeds, lines) of lines of ten tokens and twenty characters, by their seeds."""
    rows: list[list[float]] = (10 * losses).tolist()
    return {
        seed: LineLosses(nats=tuple(row), tokens=(10,) * len(row), chars=(20,) * len(row))
        for seed, row in enumerate(rows, first_seed)
    }


def drawn_losses(seeds: int, lines: int = 30, seed_sd: float = 0.1) -> NDArray[np.float64]:
    random = np.random.Generator(np.random.PCG64(seeds))
    of_lines: NDArray[np.float64] = random.normal(0, 0.3, lines)
    of_seeds: NDArray[np.float64] = random.normal(0, seed_sd, (seeds, 1))
    return 2 + of_lines + of_seeds


def error_of_means(losses: NDArray[np.float64], axis: int) -> float:
    """The standard error of the means over an axis."""
    means: list[float] = np.mean(losses, axis=axis).tolist()
    return stdev(means) / math.sqrt(len(means))


def test_difference_of_trainings__has_the_errors_over_lines_and_over_seeds() -> None:
    mine, its = drawn_losses(4), drawn_losses(3)
    found = loss_difference(runs_of(mine), runs_of(its), per_char=False)  # seed 4 has no pair
    table: NDArray[np.float64] = mine[:3] - its
    values: list[float] = table.ravel().tolist()
    of_lines, of_seeds = error_of_means(table, 0), error_of_means(table, 1)
    assert (found.n_first, found.n_second) == (3, 3) and found.value == pytest.approx(fmean(values))
    assert found.lines == pytest.approx((of_lines, 29)) and found.seeds is not None and found.error is not None
    assert found.seeds.method == "paired" and found.seeds.error == pytest.approx((of_seeds, 2))
    assert found.error.value == pytest.approx(math.hypot(of_lines, of_seeds))
    per_char = loss_difference(runs_of(mine), runs_of(its), per_char=True)
    assert per_char.value == pytest.approx(found.value / 2 / math.log(2))
    assert per_char.error == pytest.approx((found.error.value / 2 / math.log(2), found.error.degrees))
    unpaired = loss_difference(runs_of(mine), runs_of(its, 4), per_char=False)  # one common seed
    spreads = [error_of_means(losses, 1) for losses in (mine, its)]
    assert unpaired.seeds is not None and unpaired.n_first == 4 and unpaired.error is not None
    assert unpaired.seeds.method == "welch" and unpaired.seeds.error.value == pytest.approx(math.hypot(*spreads))
    single = loss_difference(runs_of(mine[:1]), runs_of(its), per_char=False)
    assert single.seeds is not None and single.seeds.method == "single"
    assert single.seeds.error == pytest.approx((2 * error_of_means(its, 1), 2))
    alone = loss_difference(runs_of(mine[:1]), runs_of(its[:1]), per_char=False)
    assert alone.seeds is None and alone.error == alone.lines


def test_difference_of_trainings__without_lines_or_variation_has_no_error() -> None:
    equal = drawn_losses(3, seed_sd=0.0)  # a family without seeds
    varied = equal + 0.1 * drawn_losses(1)
    assert loss_difference(runs_of(equal), runs_of(equal + 0.1), per_char=False).error is None
    no_seeds = loss_difference(runs_of(equal), runs_of(varied), per_char=False)
    assert no_seeds.seeds is not None and no_seeds.seeds.error.value == pytest.approx(0)
    assert no_seeds.error == pytest.approx(no_seeds.lines)
    few, many = runs_of(drawn_losses(3, lines=3)), runs_of(drawn_losses(3))
    for one, other in ((few, few), (few, many), (runs_of(drawn_losses(3)), few)):
        found = loss_difference(one, other, per_char=False)
        assert found.lines is found.error is None


def _reason(lines: LineLosses) -> str | None:
    return None if lines.missing_interval is None else ENGLISH.note(lines.missing_interval)


def test_loss_without_an_interval__has_the_reason() -> None:
    lines = [LineLosses(nats=(1.0,) * n, tokens=(1,) * n, chars=(1,) * n) for n in (1, 5, 6)]
    one, five, six = (_reason(each) for each in lines)
    assert one == "No interval: the text has 1 line, and an interval takes 6 or more."
    assert five == "No interval: the text has 5 lines, and an interval takes 6 or more." and six is None
    neighbours = LineLosses(nats=(1.0,) * 59, tokens=(1,) * 59, chars=(1,) * 59, is_drawn=False)
    assert _reason(neighbours) == (
        "No interval: the text has 59 lines, and an interval of neighbouring lines takes 60 or more."
    )
    uneven = LineLosses(nats=(1.0,) * 9, tokens=(100, *(1,) * 8), chars=(1,) * 9)
    assert _reason(uneven) == "No interval: a few long lines have most of the text."


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
        half = margin(*pair, is_drawn=True)
        assert half is not None
        weight = 1 if divisor == "tokens" else 2  # characters per token
        found = (sum(mine.nats) - sum(its.nats)) / sum(pair[0][1])
        covered += abs(found - gain / weight) <= half
    assert 0.93 <= covered / 400 <= 0.97


@pytest.mark.parametrize(("lines", "blocks"), [(60, 4), (75, 5), (120, 8), (150, 10), (200, 10)])
def test_interval_of_neighbours__is_the_t_interval_of_at_most_ten_blocks_of_fifteen(lines: int, blocks: int) -> None:
    random = np.random.Generator(np.random.PCG64(3))
    nats: list[float] = random.normal(20, 1, lines).tolist()
    size = lines // blocks
    means = [fmean(nats[begin : begin + size]) / 10 for begin in range(0, lines, size)]
    found = margin((nats, [10] * lines), is_drawn=False)
    assert found == pytest.approx(quantile(blocks - 1) * stdev(means) / math.sqrt(blocks))


@pytest.mark.parametrize(
    ("lines", "dependence"),
    [
        (60, 0.6),
        (200, 0.6),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((200, 0.0), (200, 0.3), (1000, 0.9))),
    ],
)
def test_interval_of_neighbours__covers_the_true_loss_in_95_percent_of_texts(lines: int, dependence: float) -> None:
    """The loss of each line depends on that of the line before, as in an AR(1) process.

    Its mean over many lines has (1 + r) / (1 - r) times the variance of independent lines, so single lines cover less.
    """
    random = np.random.Generator(np.random.PCG64(11))
    texts, covered = 500, {True: 0, False: 0}
    tokens: NDArray[np.int64] = np.full(lines, 10, dtype=np.int64)
    state: NDArray[np.float64] = random.normal(0, 1, texts)
    losses: list[NDArray[np.float64]] = []
    for _ in range(lines):
        losses.append(state)
        new: NDArray[np.float64] = random.normal(0, math.sqrt(1 - dependence**2), texts)
        state = dependence * state + new
    by_text: NDArray[np.float64] = np.stack(losses, axis=1)
    for text in range(texts):
        deviations: NDArray[np.float64] = by_text[text]
        nats: NDArray[np.float64] = 10 * (3 + deviations)
        groups = grouped(nats, tokens)
        for is_drawn in covered:
            half = margin((groups.nats, groups.tokens), is_drawn=is_drawn)
            assert half is not None
            covered[is_drawn] += abs(sum(groups.nats) / sum(groups.tokens) - 3) <= half
    assert covered[False] / texts >= 0.93
    if lines <= 200:
        shrunk = float(norm.ppf(0.975)) * math.sqrt((1 - dependence) / (1 + dependence))
        assert covered[True] / texts == pytest.approx(2 * float(norm.cdf(shrunk)) - 1, abs=0.04)
    else:
        assert covered[True] / texts < 0.75


def grouped(nats: NDArray[np.float64], tokens: NDArray[np.int64]) -> LineLosses:
    """The losses of lines in at most 200 groups of consecutive lines; every token has two characters."""
    step = max(1, len(nats) // 200)
    starts: NDArray[np.int64] = np.arange(0, len(nats), step)
    sums: list[float] = np.add.reduceat(nats, starts).tolist()
    counts: list[int] = np.add.reduceat(tokens, starts).tolist()
    return LineLosses(nats=tuple(sums), tokens=tuple(counts), chars=tuple(2 * count for count in counts))
