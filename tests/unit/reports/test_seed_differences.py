"""Differences of means over seeds, their 95 % intervals and effect sizes, against scipy and closed forms."""

from collections.abc import Mapping
from math import gamma, hypot, log, sqrt
from statistics import fmean, stdev
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tests.support.measured_runs import line_losses, measured, of_fields
from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.contracts.intervals import mean_difference
from trainer.reports.comparison import Against, Comparison, Measured, MeasuredGroup, compare
from trainer.reports.comparison_report import verdict
from trainer.reports.report_text import ENGLISH, Reader
from trainer.reports.seed_differences import SeedDifference, described, seed_difference

BITS = Reader("bits")
A = {1: 2.01, 2: 1.97, 3: 2.05, 4: 1.99, 5: 2.02}
B = {1: 1.95, 2: 1.94, 3: 1.99, 4: 1.96, 5: 1.91}
OTHERS = {7: 1.95, 8: 1.75, 9: 2.1}
TWO = {7: 1.95, 8: 1.75}


OVER_BOTH = "The interval is over the lines of this text and over seeds."
OVER_LINES = "The interval is over the lines of this text."


def notes_of(one: Against) -> tuple[str, ...]:
    """The notes of a comparison as text."""
    return tuple(map(BITS.note, one.notes))


class Answer(Protocol):
    """What scipy answers."""

    @property
    def pvalue(self) -> float: ...

    @property
    def df(self) -> float: ...

    def confidence_interval(self) -> tuple[float, float]: ...


def related(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[float, float]:
    """The 95 % interval of scipy's test of related samples."""
    test: Answer = stats.ttest_rel(values(first), values(second))
    return test.confidence_interval()


def values(by_seed: Mapping[int, float]) -> NDArray[np.float64]:
    listed: list[float] = list(by_seed.values())
    return np.array(listed, dtype=np.float64)


def over_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> SeedDifference:
    """The difference without losses of lines: over seeds only."""
    found = mean_difference(first, second)
    assert found.seeds is not None
    return seed_difference(found, found.seeds)


def correction(degrees: int) -> float:
    """Hedges' exact correction."""
    return gamma(degrees / 2) / gamma((degrees - 1) / 2) / sqrt(degrees / 2)


def test_equal_seeds__are_paired_like_scipys_related_samples() -> None:
    found = over_seeds(A, dict(reversed(B.items())))
    low, high = related(A, B)
    differences = [A[seed] - B[seed] for seed in A]
    assert (found.method, found.n_first, found.n_second, found.degrees, found.effect) == ("paired", 5, 5, 4.0, "d_z")
    assert found.difference == pytest.approx(fmean(differences))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-5)
    assert found.effect_size == pytest.approx(correction(4) * fmean(differences) / stdev(differences))


@pytest.mark.parametrize(("first", "second"), [(A, OTHERS), (OTHERS, B), (TWO, A), (A, TWO), (TWO, {1: 1.0, 2: 1.7})])
def test_other_seeds__are_compared_like_scipys_welch_test(first: dict[int, float], second: dict[int, float]) -> None:
    found = over_seeds(first, second)
    test: Answer = stats.ttest_ind(values(first), values(second), equal_var=False)
    assert (found.method, found.effect) == ("welch", "g")
    assert found.degrees == pytest.approx(test.df)
    assert found.p == pytest.approx(test.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(test.confidence_interval(), rel=1e-3)
    n, m = len(first), len(second)
    pooled = sqrt(((n - 1) * stdev(first.values()) ** 2 + (m - 1) * stdev(second.values()) ** 2) / (n + m - 2))
    difference = fmean(first.values()) - fmean(second.values())
    assert found.effect_size == pytest.approx(correction(n + m - 2) * difference / pooled)


@pytest.mark.parametrize("is_first", [True, False])
def test_one_run__is_compared_with_another_run_of_the_group(is_first: bool) -> None:
    """Crawford and Howell 1998: t = (x - mean) / (s sqrt(1 + 1/n)), with n - 1 degrees of freedom."""
    one = {9: 2.2}
    found = over_seeds(one, A) if is_first else over_seeds(A, one)
    half = float(stats.t.ppf(0.975, 4)) * stdev(A.values()) * sqrt(1 + 1 / 5)
    difference = (2.2 - fmean(A.values())) * (1 if is_first else -1)
    assert (found.method, found.degrees, found.effect) == ("single", 4.0, "g")
    assert (found.low, found.high) == pytest.approx((difference - half, difference + half), rel=1e-5)
    assert found.effect_size == pytest.approx(correction(4) * difference / stdev(A.values()))
    assert found.p == pytest.approx(
        2 * float(stats.t.sf(abs(difference) / (stdev(A.values()) * sqrt(6 / 5)), 4)), rel=1e-9
    )


@pytest.mark.parametrize("second", [{1: 2.0, 2: 3.0}, {5: 2.0, 6: 2.0}, {5: 2.0}])
def test_runs_without_any_deviation__have_neither_interval_nor_effect_size(second: dict[int, float]) -> None:
    first = {1: 1.0, 2: 2.0} if 1 in second else {1: 1.0, 2: 1.0}
    found = over_seeds(first, second)
    assert (found.difference, found.low, found.high, found.p, found.degrees) == (-1.0, None, None, None, None)
    assert (found.seeds_error, found.effect_size) == (0.0, None)
    in_bits, in_nats = BITS.note(described(found, "loss")), ENGLISH.note(described(found, "bits_per_char"))
    assert in_bits.endswith(": -1.443 bits per token.") and in_nats.endswith(": -0.693 nats per character.")


@pytest.mark.parametrize("second", [{1: 2.0, 2: 3.0}, {5: 2.0}])
def test_effect_size_of_two_seeds__cannot_be_corrected_and_is_not_given(second: dict[int, float]) -> None:
    found = over_seeds({1: 1.0, 2: 2.4}, second)
    assert found.effect_size is None and found.low is not None
    assert BITS.note(described(found, "loss")).endswith(").")


def group(
    name: str,
    losses: Mapping[int, float],
    *left_out: str,
    spread: float | None = None,
    n_lines: int = 40,
    family: str = "lstm",
    **fields: object,
) -> MeasuredGroup:
    """Trainings by seed; the losses of lines differ from their mean by `spread`, by default as in `line_losses`."""
    runs = [
        of_fields(
            f"{name}-s{seed}",
            fields | {"seed": seed},
            family=family,
            summary={"loss": loss, "lines": line_losses(loss, spread, n_lines)},
        )
        for seed, loss in losses.items()
    ]
    return MeasuredGroup(name, runs, left_out)


def pair(one: Measured, two: Measured) -> Comparison:
    return compare([one, two], split="test")


def half_width(lines_error: float, n_lines: int, seeds_error: float, n_seeds: int) -> float:
    """Half of the interval by Student's t, whose degrees give the variances four degrees' worth more."""
    lines, seeds = (error**2 * (1 + 4 / (n - 1)) for error, n in ((lines_error, n_lines), (seeds_error, n_seeds)))
    degrees = (lines + seeds) ** 2 / (lines**2 / (n_lines - 1) + seeds**2 / (n_seeds - 1))
    return float(stats.t.ppf(0.975, degrees)) * hypot(lines_error, seeds_error)


def test_groups__are_compared_by_their_means_with_the_interval_over_lines_and_seeds() -> None:
    """Half of the lines of one group are 0.1 above its mean, half below, so the lines err by 0.1 / sqrt(39)."""
    slow = group("slow", A, spread=0.1, learning_rate=0.1)
    found = pair(slow, group("fast", B, "seed 6 (failed)", "seed 7 (deleted)", spread=0.0))
    [one] = found.against
    differences = [A[seed] - B[seed] for seed in A]
    half = half_width(0.1 / sqrt(39), 40, stdev(differences) / sqrt(5), 5)
    mean, other = fmean(A.values()), fmean(B.values())
    assert [run.run_id for run in found.runs] == ["slow", "fast"] and found.runs[0].n_runs == 5
    assert found.runs[0].loss == pytest.approx(mean)
    assert found.runs[0].deviations is not None
    assert found.runs[0].deviations.loss == pytest.approx(stdev(A.values()))
    assert (one.run_id, one.basis, one.verdict, one.is_regression) == ("fast", "loss", "worse", True)
    assert one.rise == pytest.approx((mean - other) / other)
    assert one.interval is not None and one.interval.low == pytest.approx((mean - other - half) / other, rel=1e-4)
    assert one.over_seeds is not None
    assert (one.over_seeds.low, one.over_seeds.high) == pytest.approx((mean - other - half, mean - other + half))
    assert one.over_seeds.lines_error == pytest.approx(0.1 / sqrt(39))
    assert one.over_seeds.seeds_error == pytest.approx(stdev(differences) / sqrt(5))
    assert one.p == one.over_seeds.p
    assert BITS.note(verdict(one, 0.01)).startswith("✗ worse: loss +2.97% (95 % interval ")
    assert [each.field for each in one.differences] == ["learning_rate"]
    assert notes_of(one)[0].startswith(f"Paired over 5 seeds: +{0.058 / log(2):.3f} bits per token (95 % interval ")
    effect = correction(4) * fmean(differences) / stdev(differences)
    assert notes_of(one)[0].endswith(f", corrected d_z {effect:+.2f}.")
    left_out = "`fast`: no completed run, so left out: seed 6 (failed), seed 7 (deleted)."
    assert notes_of(one)[1:] == (OVER_BOTH, left_out)


def test_groups_on_few_lines__have_no_verdict() -> None:
    one, two = (group(name, losses, spread=0.1, n_lines=3) for name, losses in (("slow", A), ("fast", B)))
    [found] = pair(one, two).against
    assert (found.verdict, found.interval, found.p, found.is_regression) == ("no_interval", None, None, False)
    assert found.over_seeds is not None and found.over_seeds.low is None and not pair(one, two).is_passed
    assert BITS.note(verdict(found, 0.01)) == "no interval: loss +2.97%"
    assert notes_of(found)[1] == "No interval: the text has 3 lines, and an interval takes 6 or more."


def test_many_seeds_of_a_setting_that_differ_little__do_not_make_the_lines_sure() -> None:
    """Five seeds that agree: the difference on other lines is not known better for it."""
    same = dict.fromkeys(range(5), 2.0)
    worse = {seed: 2.02 + seed / 1000 for seed in same}
    [one] = pair(group("a", worse, spread=0.1), group("b", same, spread=0.0)).against
    assert related(worse, same)[0] > 0, "over seeds alone, the difference is clear"
    assert one.verdict == "no_clear_difference"


@pytest.mark.parametrize(
    ("family", "notes"),
    [
        ("ngram", ("n-grams do not depend on the seed: more seeds are no more evidence.", OVER_LINES)),
        ("gru", (OVER_LINES,)),
    ],
)
def test_groups_without_deviation__are_compared_over_lines(family: str, notes: tuple[str, ...]) -> None:
    losses, same = (dict.fromkeys((1, 2, 3), loss) for loss in (2.1, 2.0))
    one = group("a", losses, spread=0.1, family=family)
    two = group("b", same, spread=0.0, family=family)
    [found] = pair(one, two).against
    half = float(stats.t.ppf(0.975, 39)) * 0.1 / sqrt(39)
    assert found.verdict == "worse" and found.interval is not None and found.over_seeds is not None
    assert found.interval.high == pytest.approx(0.05 + half / 2) and found.over_seeds.effect_size is None
    assert notes_of(found)[1:] == notes


def test_one_training_against_ngrams__is_not_compared_over_its_seeds() -> None:
    [one] = group("a", {1: 2.1}, spread=0.1).runs
    [found] = pair(one, group("b", dict.fromkeys((1, 2, 3), 2.0), spread=0.0, family="ngram")).against
    of_one = "One seed of `a-s1`: the interval covers lines of the text, not the spread of its trainings."
    assert (found.verdict, notes_of(found)[1:]) == ("worse", (of_one,))


def test_groups_without_any_variation__have_no_interval() -> None:
    one, two = (group(name, dict.fromkeys((1, 2), loss), spread=0.0) for name, loss in (("a", 2.1), ("b", 2.0)))
    [found] = pair(one, two).against
    assert (found.verdict, found.interval) == ("no_interval", None)
    assert notes_of(found)[1:] == ("No interval: the difference is the same in all lines.",)


def test_evaluations_by_older_versions__are_compared_over_seeds_only() -> None:
    one, two = (group(name, losses, n_lines=0) for name, losses in (("slow", A), ("fast", B)))
    [found] = pair(one, two).against
    assert found.interval is not None and found.over_seeds is not None and found.over_seeds.lines_error is None
    assert (found.over_seeds.low, found.over_seeds.high) == pytest.approx(related(A, B), rel=1e-5)
    older = "An evaluation by an older version has no losses of lines."
    assert notes_of(found)[1:] == (f"{older} The interval is over seeds and does not cover other lines.",)
    [runs] = pair(one.runs[0], two.runs[1]).against
    assert (runs.verdict, notes_of(runs)) == ("no_interval", (f"{older} Evaluate the runs again.",))


@pytest.mark.parametrize("is_first", [True, False])
def test_failed_run__leaves_the_groups_paired_over_their_common_seeds(is_first: bool) -> None:
    """The seeds differ far more than the settings: without pairs, there would be no clear difference."""
    slow, fast = {1: 2.0, 2: 1.2, 3: 2.8, 4: 1.6}, {1: 1.9, 2: 1.11, 3: 2.69}
    one, two = group("slow", slow, learning_rate=0.1), group("fast", fast, "seed 4 (failed)")
    found = pair(one, two) if is_first else pair(two, one)
    [against], sign = found.against, 1 if is_first else -1
    common = {seed: slow[seed] for seed in fast}
    differences = [common[seed] - fast[seed] for seed in fast]
    half = half_width(0.001 / sqrt(39), 40, stdev(differences) / sqrt(3), 3)
    low, high = sign * 0.1 - half, sign * 0.1 + half
    base = fmean((fast if is_first else common).values())
    assert against.verdict == ("worse" if is_first else "better")
    assert against.over_seeds is not None and (against.over_seeds.method, against.over_seeds.n_first) == ("paired", 3)
    assert against.rise == pytest.approx(sign * 0.1 / base) and against.delta.loss == pytest.approx(sign * 0.1)
    assert against.interval is not None
    assert (against.interval.low, against.interval.high) == pytest.approx((low / base, high / base), rel=1e-4)
    notes = ["`slow`: without a pair, so left out: seed 4.", "`fast`: no completed run, so left out: seed 4 (failed)."]
    assert notes_of(against)[0].startswith("Paired over 3 seeds: ") and [*notes_of(against)[1:]] == [OVER_BOTH, *notes]
    assert {run.run_id: run.n_runs for run in found.runs} == {"slow": 4, "fast": 3}


def test_groups_with_one_common_seed__keep_all_runs_and_say_so() -> None:
    [one] = pair(group("new", {1: 2.5, 2: 2.6}), group("old", {2: 2.0, 3: 2.1})).against
    assert one.over_seeds is not None and (one.over_seeds.method, one.over_seeds.n_first) == ("welch", 2)
    assert notes_of(one)[0].startswith("2 runs against 2, fewer than two common seeds (Welch's t): +0.721")


def test_group__is_compared_in_what_all_of_its_runs_have_in_common() -> None:
    mixed = MeasuredGroup("mixed", [measured("a", seed=1), measured("b", seed=2, tokenizer="b")])
    [one] = pair(mixed, group("old", A)).against
    assert one.basis == "bits_per_char"
    assert notes_of(one)[0] == "Their tokenizers differ: only losses per character are comparable."
    masked = MeasuredGroup("m", [measured("c", seed=1), measured("d", seed=2, documents="stream")])
    [none] = pair(masked, group("old", A)).against
    assert (none.basis, none.interval, none.over_seeds, none.verdict) == (None, None, None, "not_comparable")


def test_run_and_its_own_group__are_not_compared() -> None:
    runs = group("own", A)
    with refused(ErrorCode.INVALID_INPUT, "A run cannot be compared with itself"):
        pair(runs.runs[0], runs)


def test_groups_with_one_completed_run__are_compared_as_runs() -> None:
    [one] = pair(group("new", {1: 2.1}, "seed 2 (failed)", learning_rate=0.1), group("old", {1: 2.0})).against
    assert one.over_seeds is None and "One seed each" in notes_of(one)[0] and "seed 2 (failed)" in notes_of(one)[1]
