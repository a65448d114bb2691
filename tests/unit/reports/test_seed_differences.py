"""Differences of means over seeds, their 95 % intervals and effect sizes, against scipy and closed forms."""

from collections.abc import Mapping
from math import log, sqrt
from statistics import fmean, stdev
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tests.support.measured_runs import line_losses, measured, of_fields
from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.reports.comparison import Against, Comparison, Measured, MeasuredGroup, compare
from trainer.reports.comparison_report import verdict
from trainer.reports.report_text import ENGLISH, Reader
from trainer.reports.seed_differences import described, difference_over_seeds

BITS = Reader("bits")
A = {1: 2.01, 2: 1.97, 3: 2.05, 4: 1.99, 5: 2.02}
B = {1: 1.95, 2: 1.94, 3: 1.99, 4: 1.96, 5: 1.91}
OTHERS = {7: 1.95, 8: 1.75, 9: 2.1}
TWO = {7: 1.95, 8: 1.75}


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


def test_equal_seeds__are_paired_like_scipys_related_samples() -> None:
    found = difference_over_seeds(A, dict(reversed(B.items())))
    low, high = related(A, B)
    differences = [A[seed] - B[seed] for seed in A]
    assert (found.method, found.n_first, found.n_second, found.degrees, found.effect) == ("paired", 5, 5, 4.0, "d_z")
    assert found.difference == pytest.approx(fmean(differences))
    assert found.low == pytest.approx(low, rel=1e-5) and found.high == pytest.approx(high, rel=1e-5)
    assert found.effect_size == pytest.approx(fmean(differences) / stdev(differences))


@pytest.mark.parametrize(("first", "second"), [(A, OTHERS), (OTHERS, B), (TWO, A), (A, TWO), (TWO, {1: 1.0, 2: 1.7})])
def test_other_seeds__are_compared_like_scipys_welch_test(first: dict[int, float], second: dict[int, float]) -> None:
    found = difference_over_seeds(first, second)
    test: Answer = stats.ttest_ind(values(first), values(second), equal_var=False)
    low, high = test.confidence_interval()
    assert (found.method, found.effect) == ("welch", "g")
    assert found.degrees == pytest.approx(test.df)
    assert found.p == pytest.approx(test.pvalue, rel=1e-9)
    assert found.low == pytest.approx(low, rel=1e-3) and found.high == pytest.approx(high, rel=1e-3)
    n, m = len(first), len(second)
    pooled = sqrt(((n - 1) * stdev(first.values()) ** 2 + (m - 1) * stdev(second.values()) ** 2) / (n + m - 2))
    corrected = (1 - 3 / (4 * (n + m) - 9)) * (fmean(first.values()) - fmean(second.values())) / pooled
    assert found.effect_size == pytest.approx(corrected)


@pytest.mark.parametrize("is_first", [True, False])
def test_one_run__is_compared_with_another_run_of_the_group(is_first: bool) -> None:
    """Crawford and Howell 1998: t = (x - mean) / (s sqrt(1 + 1/n)), with n - 1 degrees of freedom."""
    one = {9: 2.2}
    found = difference_over_seeds(one, A) if is_first else difference_over_seeds(A, one)
    half = float(stats.t.ppf(0.975, 4)) * stdev(A.values()) * sqrt(1 + 1 / 5)
    difference = (2.2 - fmean(A.values())) * (1 if is_first else -1)
    assert (found.method, found.degrees, found.effect) == ("single", 4.0, "g")
    assert found.low == pytest.approx(difference - half, rel=1e-5)
    assert found.high == pytest.approx(difference + half, rel=1e-5)
    assert found.effect_size == pytest.approx((1 - 3 / 15) * difference / stdev(A.values()))
    assert found.p == pytest.approx(
        2 * float(stats.t.sf(abs(difference) / (stdev(A.values()) * sqrt(6 / 5)), 4)), rel=1e-9
    )


@pytest.mark.parametrize("second", [{1: 2.0, 2: 3.0}, {5: 2.0, 6: 2.0}, {5: 2.0}])
def test_runs_without_any_deviation__have_no_effect_size(second: dict[int, float]) -> None:
    first = {1: 1.0, 2: 2.0} if 1 in second else {1: 1.0, 2: 1.0}
    found = difference_over_seeds(first, second)
    assert (found.difference, found.low, found.high) == (-1.0, -1.0, -1.0)
    assert (found.degrees, found.effect_size) == (None, None)
    in_bits, in_nats = BITS.note(described(found, "loss")), ENGLISH.note(described(found, "bits_per_char"))
    assert in_bits.endswith("-1.443 bits per token (95 % interval -1.443 to -1.443).")
    assert in_nats.endswith("-0.693 nats per character (95 % interval -0.693 to -0.693).")


def group(name: str, losses: Mapping[int, float], *left_out: str, **fields: object) -> MeasuredGroup:
    runs = [
        of_fields(f"{name}-s{seed}", fields | {"seed": seed}, summary={"loss": loss, "lines": line_losses(loss)})
        for seed, loss in losses.items()
    ]
    return MeasuredGroup(name, runs, left_out)


def pair(one: Measured, two: Measured) -> Comparison:
    return compare([one, two], split="test")


def test_groups__are_compared_by_their_means_with_the_interval_over_seeds() -> None:
    found = pair(group("slow", A, learning_rate=0.1), group("fast", B, "seed 6 (failed)", "seed 7 (deleted)"))
    [one] = found.against
    low, _ = related(A, B)
    mean, other = fmean(A.values()), fmean(B.values())
    assert [run.run_id for run in found.runs] == ["slow", "fast"] and found.runs[0].n_runs == 5
    assert found.runs[0].loss == pytest.approx(mean)
    assert found.runs[0].deviations is not None
    assert found.runs[0].deviations.loss == pytest.approx(stdev(A.values()))
    assert (one.run_id, one.basis, one.verdict, one.is_regression) == ("fast", "loss", "worse", True)
    assert one.rise == pytest.approx((mean - other) / other)
    assert one.interval is not None and one.interval.low == pytest.approx(low / other, rel=1e-4)
    assert BITS.note(verdict(one, 0.01)).startswith("✗ worse: loss +2.97% (95 % interval ")
    assert [each.field for each in one.differences] == ["learning_rate"]
    assert notes_of(one)[0].startswith(f"Paired over 5 seeds: +{0.058 / log(2):.3f} bits per token (95 % interval ")
    differences = [A[seed] - B[seed] for seed in A]
    assert notes_of(one)[0].endswith(f"Cohen's d_z {fmean(differences) / stdev(differences):+.2f}.")
    assert notes_of(one)[1:] == ("`fast`: no completed run, so left out: seed 6 (failed), seed 7 (deleted).",)


@pytest.mark.parametrize("is_first", [True, False])
def test_failed_run__leaves_the_groups_paired_over_their_common_seeds(is_first: bool) -> None:
    """The seeds differ far more than the settings: without pairs, there would be no clear difference."""
    slow, fast = {1: 2.0, 2: 1.2, 3: 2.8, 4: 1.6}, {1: 1.9, 2: 1.11, 3: 2.69}
    one, two = group("slow", slow, learning_rate=0.1), group("fast", fast, "seed 4 (failed)")
    found = pair(one, two) if is_first else pair(two, one)
    [against], sign = found.against, 1 if is_first else -1
    common = {seed: slow[seed] for seed in fast}
    low, high = sorted(sign * end for end in related(common, fast))
    base = fmean((fast if is_first else common).values())
    assert against.verdict == ("worse" if is_first else "better")
    assert against.over_seeds is not None and (against.over_seeds.method, against.over_seeds.n_first) == ("paired", 3)
    assert against.rise == pytest.approx(sign * 0.1 / base) and against.delta.loss == pytest.approx(sign * 0.1)
    assert against.interval is not None
    assert (against.interval.low, against.interval.high) == pytest.approx((low / base, high / base), rel=1e-4)
    notes = ["`slow`: without a pair, so left out: seed 4.", "`fast`: no completed run, so left out: seed 4 (failed)."]
    assert notes_of(against)[0].startswith("Paired over 3 seeds: ") and [*notes_of(against)[1:]] == notes
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
