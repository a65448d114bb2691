"""Comparisons of runs on the same items: exact tests, intervals and seeds."""

from itertools import product
from math import comb, sqrt

import pytest
from scipy import stats

from trainer.batteries.comparisons import (
    Paradigm,
    bootstrap_interval,
    comparisons_of,
    language_rows,
    mcnemar,
    seed_bands,
)
from trainer.contracts.base import changed
from trainer.contracts.batteries import Accuracy, BatteryRun, BatteryScores, GroupResult, Outcome


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (3, 10), (10, 3), (0, 12), (60, 40), (700, 600)])
def test_mcnemar__is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = 1.0 if first == second else float(stats.binomtest(first, first + second).pvalue)
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_bootstrap__covers_as_brute_force_over_all_resamples_of_few_items() -> None:
    # 5 items: two only the first run gets right, one only the second; all 5**5 resamples are equally likely
    differences = (1, 1, -1, 0, 0)
    means = sorted(sum(drawn) / 5 for drawn in product(differences, repeat=5))
    expected = means[int(0.025 * len(means))], means[int(0.975 * len(means))]
    interval = bootstrap_interval([(5, 2, 1)])
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-12)


def test_bootstrap__of_several_paradigms_has_the_variance_of_their_sum() -> None:
    counts = [(400, 90, 40), (100, 5, 20)]
    interval = bootstrap_interval(counts)
    variance = sum(b + c - (b - c) ** 2 / n for n, b, c in counts) / 500**2
    middle, half = (95 - 60) / 500, 1.959964 * sqrt(variance)
    assert (interval.low, interval.high) == pytest.approx((middle - half, middle + half), abs=0.004)


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
    assert [one.p_holm for one in found] == [None, 1.0, 1.0]
    assert {(one.first_run_id, one.second_run_id) for one in found} == {("one", "two")}


def group(share: float | None) -> GroupResult:
    accuracy = Accuracy(measure="sum", n_right=1, n_wrong=1, n_ties=0, accuracy=share)
    return GroupResult(
        battery="b", level="battery", name="", n_items=2, n_identical=0, n_unknown=0, n_cut=0, accuracies=(accuracy,)
    )


def test_seeds__have_their_mean_deviation_and_band() -> None:
    shares = (0.5, 0.7, 0.6, None, 0.9)
    runs = {
        BatteryRun(run_id=f"r{n}", seed=n, series="a" * 64 if n < 4 else "b" * 64): (group(share),)
        for n, share in enumerate(shares)
    }
    [band] = seed_bands(runs, "sum")
    assert (band.mean, band.deviation) == pytest.approx((0.6, 0.1))
    half = float(stats.t.ppf(0.975, 2)) * 0.1 / sqrt(3)
    assert (band.low, band.high) == pytest.approx((0.6 - half, 0.6 + half), rel=0.02)
    assert band.run_ids == ("r0", "r1", "r2", "r3")
    [wide] = seed_bands(dict(zip([*runs][:2], [(group(0.1),), (group(0.9),)], strict=True)), "sum")
    assert (wide.low, wide.high) == (0.0, 1.0), "no accuracy is beyond 0 and 100 %"


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
        (language, "kk", 2) for language in shares
    ]
