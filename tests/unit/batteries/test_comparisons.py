"""Comparisons of runs on the same items: exact tests, intervals and seeds."""

from collections.abc import Iterator
from math import comb, inf, log, sqrt

import numpy as np
import pytest
from scipy import stats

from trainer.batteries.comparisons import (
    Paradigm,
    comparisons_of,
    difference_interval,
    language_rows,
    mcnemar,
    seed_bands,
)
from trainer.batteries.outcomes import wilson_interval
from trainer.contracts.base import changed
from trainer.contracts.batteries import Accuracy, BatteryScores, GroupResult, Outcome
from trainer.contracts.runs import RunModel


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (3, 10), (10, 3), (0, 12), (60, 40), (700, 600)])
def test_mcnemar__is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = 1.0 if first == second else float(stats.binomtest(first, first + second).pvalue)
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def counts(n_items: int) -> Iterator[tuple[int, int]]:
    """Yield all numbers of items that only the first run, and only the second run gets right."""
    yield from ((first, second) for first in range(n_items + 1) for second in range(n_items + 1 - first))


@pytest.mark.parametrize(
    ("n_items", "first", "second"), [(40, 5, 5), (30, 12, 2), (21, 13, 1), (100, 0, 9), (50, 3, 20)]
)
def test_interval__is_where_the_score_test_of_tango_is_at_its_limit(n_items: int, first: int, second: int) -> None:
    def score(difference: float) -> float:
        """The squared score with the share of `second` that is likeliest by search, not by Tango's formula."""

        def likelihood(share: float) -> float:
            shares = (share + difference, share, 1 - 2 * share - difference)
            numbers = (first, second, n_items - first - second)
            if min(shares) < 0:
                return -inf
            return sum(number * log(max(one, 1e-300)) for number, one in zip(numbers, shares, strict=True) if number)

        low, high = max(0.0, -difference), (1 - difference) / 2
        for _ in range(100):
            one, other = low + (high - low) / 3, high - (high - low) / 3
            low, high = (one, high) if likelihood(one) < likelihood(other) else (low, other)
        variance = n_items * (2 * low + difference * (1 - difference))
        return float((first - second - n_items * difference) ** 2 / variance)

    interval = difference_interval(n_items, first, second)
    assert [score(end) for end in (interval.low, interval.high)] == pytest.approx([1.959964**2] * 2, rel=1e-3)


@pytest.mark.parametrize(
    ("n_items", "first", "second", "low", "high"),
    [
        (3, 0, 0, -0.5615, 0.5615),  # z² / (n + z²)
        (40, 5, 5, -0.1663, 0.1663),
        (21, 1, 7, -0.517, 0.0),  # Fagerland et al. (2014), table III: -0.517 to -0.026, but p = 0.070
        (3, 3, 0, -0.2897, 1.0),  # (n - z²) / (n + z²), less half an item
    ],
)
def test_interval__has_the_published_values(n_items: int, first: int, second: int, low: float, high: float) -> None:
    interval = difference_interval(n_items, first, second)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize("n_items", [*range(1, 26), 60])
def test_interval__is_never_at_odds_with_the_exact_test_and_never_of_width_zero(n_items: int) -> None:
    for first, second in counts(n_items):
        interval = difference_interval(n_items, first, second)
        assert -1 <= interval.low < interval.high <= 1
        assert interval.low <= (first - second) / n_items <= interval.high
        assert (not interval.low <= 0 <= interval.high) == (mcnemar(first, second) < 0.05), (first, second)
        mirrored = difference_interval(n_items, second, first)
        assert (-mirrored.high, -mirrored.low) == (interval.low, interval.high)


@pytest.mark.parametrize("n_more", [0, 10, 100_000])
def test_interval__leaves_out_0_from_the_first_significant_p_on(n_more: int) -> None:
    for n_different in range(6, 250, 7):
        fewer = max(one for one in range(n_different // 2) if mcnemar(n_different - one, one) < 0.05)
        n_items = n_different + n_more
        assert difference_interval(n_items, n_different - fewer, fewer).low > 0
        assert difference_interval(n_items, n_different - fewer - 1, fewer + 1).low <= 0


@pytest.mark.parametrize("n_items", [4, 10, 20, 50])
def test_interval__has_the_difference_in_it_in_at_least_93_of_100_cases(n_items: int) -> None:
    ends = {each: difference_interval(n_items, *each) for each in counts(n_items)}
    ways = {(b, c): comb(n_items, b) * comb(n_items - b, c) for b, c in ends}
    for first, second in ((b / 20, c / 20) for b, c in counts(20)):
        neither, difference = max(0.0, 1 - first - second), first - second
        covered = (each for each, end in ends.items() if end.low - 1e-9 <= difference <= end.high + 1e-9)
        terms = (ways[b, c] * first**b * second**c * neither ** (n_items - b - c) for b, c in covered)
        assert sum(terms) >= 0.93, (first, second)


@pytest.mark.parametrize("n_items", [200, 1000])
@pytest.mark.parametrize("shares", [(0.0, 0.02), (0.01, 0.01), (0.1, 0.1), (0.3, 0.1)])
def test_interval__of_many_items_covers_as_many(n_items: int, shares: tuple[float, float]) -> None:
    generator, (first, second) = np.random.default_rng(11), shares
    drawn: list[list[int]] = generator.multinomial(n_items, [first, second, 1 - first - second], 2000).tolist()
    intervals = [difference_interval(n_items, one[0], one[1]) for one in drawn]
    covered = sum(one.low <= first - second <= one.high for one in intervals)
    assert covered / 2000 >= 0.93


def test_comparisons__are_of_items_that_are_a_tie_for_neither() -> None:
    first: list[Outcome | None] = ["right", "right", "right", "tie", "wrong", "right", None]
    second: list[Outcome | None] = ["wrong", "wrong", "right", "right", "right", "wrong", None]
    paradigms = [Paradigm("b", "x", (0, 1, 2, 3)), Paradigm("b", "y", (4, 5)), Paradigm("c", "z", (6,))]
    found = comparisons_of(paradigms, {"one": first, "two": second})
    assert [(one.level, one.name, one.n_items, one.n_first_only, one.n_second_only) for one in found] == [
        ("battery", "", 5, 3, 1),
        ("paradigm", "x", 3, 2, 0),
        ("paradigm", "y", 2, 1, 1),
    ]
    assert [one.difference for one in found] == pytest.approx([0.4, 2 / 3, 0.0])
    assert [one.p for one in found] == pytest.approx([2 * (1 + comb(4, 1)) / 16, 0.5, 1.0])
    assert {(one.first_run_id, one.second_run_id) for one in found} == {("one", "two")}


def right_after(n_wrong: int, place: int) -> Outcome:
    return "wrong" if place < n_wrong else "right"


def test_holm__is_over_all_pairs_of_runs_and_all_rows() -> None:
    n_wrong = {"one": 0, "two": 10, "three": 7}
    runs = {name: [right_after(number, place) for place in range(20)] for name, number in n_wrong.items()}
    paradigms = [Paradigm("b", "x", range(10)), Paradigm("b", "y", range(10, 20)), Paradigm("c", "z", range(8))]
    found = comparisons_of(paradigms, runs)
    assert len(found) == 3 * 4, "a battery of one paradigm has one row"
    by_p = [row for _, _, row in sorted((row.p, place, row) for place, row in enumerate(found))]
    steps = [min(1.0, (12 - rank) * one.p) for rank, one in enumerate(by_p)]
    assert [one.p_holm for one in by_p] == pytest.approx([max(steps[: n + 1]) for n in range(12)])
    assert by_p[0].p == 2 / 2**10


def group(share: float | None, n_items: int = 1000) -> GroupResult:
    n_right = round((share or 0) * n_items)
    accuracy = Accuracy(measure="sum", n_right=n_right, n_wrong=n_items - n_right, n_ties=0, accuracy=share)
    return GroupResult(
        battery="b",
        level="battery",
        name="",
        n_items=n_items,
        n_identical=0,
        n_unknown=0,
        n_cut=0,
        accuracies=(accuracy,),
    )


def runs(*shares: float | None, n_items: int = 1000) -> dict[RunModel, tuple[GroupResult, ...]]:
    return {
        RunModel(run_id=f"r{n}", seed=n, series="a" * 64 if n < 4 else "b" * 64): (group(share, n_items),)
        for n, share in enumerate(shares)
    }


def test_seeds__have_their_mean_deviation_and_band() -> None:
    [band] = seed_bands(runs(0.5, 0.7, 0.6, None, 0.9), "sum")
    assert (band.mean, band.deviation) == pytest.approx((0.6, 0.1))
    half = float(stats.t.ppf(0.975, 2)) * 0.1 / sqrt(3)
    assert (band.low, band.high) == pytest.approx((0.6 - half, 0.6 + half), rel=0.02)
    assert band.run_ids == ("r0", "r1", "r2", "r3")
    [wide] = seed_bands(runs(0.1, 0.9), "sum")
    assert (wide.low, wide.high) == (0.0, 1.0), "no accuracy is beyond 0 and 100 %"


@pytest.mark.parametrize(("shares", "n_items"), [((0.75, 0.75, 0.75), 40), ((1.0, 1.0), 4), ((0.5, 0.51), 100)])
def test_seeds__are_never_surer_than_one_seed_about_the_items(shares: tuple[float, ...], n_items: int) -> None:
    [band] = seed_bands(runs(*shares, n_items=n_items), "sum")
    of_items = wilson_interval(band.mean, n_items)
    assert band.low <= of_items.low < of_items.high <= band.high
    if len({*shares}) == 1:
        assert (band.low, band.high) == (of_items.low, of_items.high)


def test_languages__have_the_band_of_their_seeds_or_the_interval_of_one() -> None:
    shares: dict[str, tuple[float | None, ...]] = {"kk": (0.5, 0.7, 0.6), "tr": (None, 0.8, None), "fi": (None, None)}
    scores = [
        BatteryScores(model="lstm", language=language, seed=seed, battery_language="kk", groups=(group(share),))
        for language, of_seeds in shares.items()
        for seed, share in enumerate(of_seeds)
    ]
    wilson = changed(group(0.8).accuracies[0], low=0.1, high=0.9)
    scores[4] = changed(scores[4], groups=(changed(group(0.8), accuracies=(wilson,)),))
    kk, tr, fi = language_rows(scores)
    half = float(stats.t.ppf(0.975, 2)) * 0.1 / sqrt(3)
    assert [row.n_seeds for row in (kk, tr, fi)] == [3, 1, 0]
    assert (kk.accuracy, kk.deviation) == pytest.approx((0.6, 0.1))
    assert (kk.low, kk.high) == pytest.approx((0.6 - half, 0.6 + half), rel=1e-4)
    assert (tr.accuracy, tr.deviation, tr.low, tr.high) == (0.8, None, 0.1, 0.9)
    assert (fi.accuracy, fi.deviation, fi.low, fi.high) == (None, None, None, None)
    assert [(row.model_language, row.battery_language, row.n_items) for row in (kk, tr, fi)] == [
        (language, "kk", 1000) for language in shares
    ]
