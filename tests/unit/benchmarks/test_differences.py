"""The simulation of differences: intervals cover the true difference, and the true loss of neighbouring lines."""

import pytest

from benchmarks.differences import DEVIATIONS, LINES, NEIGHBOURS, SEEDS, Row, main, of_difference, of_neighbours


def test_simulated_difference__is_covered_by_the_interval_over_lines_and_seeds() -> None:
    """By the exact binomial distribution, 95 % of 100 intervals are 88 or more in 99.6 % of the samples."""
    found = of_difference(5, 30, 0.1, 0.005, 100)
    assert (found.covered or 0) >= 0.88 and found.other < 0.6, "over seeds alone, a quarter"


def test_simulated_neighbours__are_covered_by_the_interval_over_blocks() -> None:
    found, few = of_neighbours(60, 100), of_neighbours(59, 20)
    assert (found.covered or 0) >= 0.88 and found.other < 0.85 and few.covered is None
    assert str(few).startswith("| 59 | no interval | ")


@pytest.mark.parametrize(("covered", "is_right"), [(0.92, False), (0.95, True), (0.98, False), (None, True)])
def test_coverage_of_95_percent__is_right(covered: float | None, is_right: bool) -> None:
    assert Row(("3",), covered, 0.5).is_right is is_right
    assert Row(("2",), 0.92, 0.5).is_right


def test_tables__have_a_row_for_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["2"]) in (0, 1)
    rows = capsys.readouterr().out.split("wrong")[0].count("\n| ")
    assert rows == len(SEEDS) * len(LINES) * len(DEVIATIONS) + len(NEIGHBOURS) + 1
