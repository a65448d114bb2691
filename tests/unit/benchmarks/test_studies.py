"""The simulation of studies: intervals cover the loss that was put in, and the best of the test split does not."""

import numpy as np
import pytest

from benchmarks.studies import CASES, main, record, row, simulate


def test_simulated_studies__cover_the_expected_loss_where_the_best_of_the_test_split_does_not() -> None:
    """By the exact binomial distribution, 95 % of 60 intervals are 52 or more in 99.7 % of the samples."""
    case, study, rng = CASES[2], record(seeds=5), np.random.default_rng(11)
    outcomes = [simulate(study, case, rng) for _ in range(60)]
    covered, naive = sum(one.is_covered for one in outcomes), sum(one.naive_is_covered for one in outcomes)
    assert covered >= 52 and naive <= 30
    mean, naive_mean = (sum(each) / 60 for each in ([o.error for o in outcomes], [o.naive_error for o in outcomes]))
    # the least of 30 normal deviates of 0.04 is expected 2.04 deviations below their mean
    assert abs(mean) < 0.02 and naive_mean == pytest.approx(-2.04 * 0.04, abs=0.02)
    assert row(case, 5, outcomes).startswith(f"| {case.name} | 5 | {covered / 60:.1%} |")


def test_table__has_a_row_for_each_case_and_number_of_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["3"]) in (0, 1)
    shown = capsys.readouterr().out
    assert [shown.count(f"| {case.name} |") for case in CASES] == [2] * len(CASES) and "24 studies:" in shown
