"""The simulation of word boundaries: intervals cover the F1, its differences, and that noise is chance."""

import pytest

from benchmarks.segmentation import CASES, analyse, coverage, main, rows


def test_simulated_cues__have_intervals_that_cover_the_truth() -> None:
    """By the exact binomial distribution, 95 % of 30 intervals are 24 or more in 99.7 % of the samples."""
    case = CASES[14]
    found = coverage(case, [analyse(case, seed) for seed in range(30)])
    assert min(found.covered.values()) >= 24 / 30
    assert found.truth["threshold: F1"] > 0.4 and found.truth["threshold: minus chance"] > 0.1
    first, second = rows(case.title(), [found])
    assert first.startswith("| informative, 12 lines | above a threshold | ") and "| peaks |" in second
    assert found.faults(case, 30) == []


def test_simulated_noise__has_the_f1_of_chance() -> None:
    """Above a threshold 2 p / (1 + p), with thresholds below nearly all values."""
    case = CASES[5]
    found = coverage(case, [analyse(case, seed) for seed in range(12)])
    assert found.truth["threshold: F1"] == pytest.approx(0.4, abs=0.03)
    assert found.truth["threshold: minus chance"] == 0
    assert min(found.is_chance.values()) >= 9 / 12
    outside = found._replace(is_chance={"threshold": 0.5, "peak": 1.0})
    faults = [fault for fault in outside.faults(case, 2000) if "range" in fault]
    assert faults == [
        f"noise, 25 lines, boundaries at 25%, {rule}: range of chance: {share} covered"
        for rule, share in (("threshold", "50.0%"), ("peak", "100.0%"))
    ]


@pytest.mark.slow
def test_table__has_two_rows_for_each_number_of_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["2"]) in (0, 1)
    shown = capsys.readouterr().out
    assert [shown.count(f"| {case.title()} |") for case in CASES] == [2] * len(CASES)
